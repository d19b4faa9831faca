"""Tokenizers of models other than those that made a corpus: those whose windows are filled."""

from pathlib import Path

from services.retrieve.corpus.chunk import TokenCounter
from shared.errors import ApiError
from shared.modelstore.entry import ModelStoreError
from shared.modelstore.store import ModelStore

_FILE = "tokenizer.json"


class Tokenizers:
    """The token counters of the models in the model store, each read once. From any thread."""

    def __init__(self, models_dir: Path) -> None:
        self._store = ModelStore(models_dir)
        self._counters: dict[str, TokenCounter] = {}

    def counter(self, name: str) -> TokenCounter:
        """How the model of that name counts. Raises ApiError 404 where the model store has none of
        that name, or it has no tokenizer.json that can be read."""
        if name not in self._counters:
            try:
                path = self._store.require(name).path / _FILE
                self._counters[name] = TokenCounter(path.read_bytes())
            except (ModelStoreError, OSError, ValueError):
                # No more than that: where models are kept is not for every caller.
                message = f"the model store has no tokenizer of a model '{name}'"
                raise ApiError(404, "unknown_tokenizer", message, param="tokenizer") from None
        return self._counters[name]
