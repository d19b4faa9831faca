"""An encoder on ONNX Runtime: the default, needs no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

from services.embed.models.base import Kind, ModelInfo, Reading, readings
from services.embed.models.prompts import read_default_prompt, read_prompts
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import Tokenized
from shared.settings import Precision


class OnnxModel:
    """A LocalModel over a folder with a graph, or with BERT-like weights that one is built of.

    built_dir: where a built graph is kept. precision: of a built graph. Raises ModelError (a
    StartupError) where the folder can't be used.
    """

    def __init__(
        self, name: str, folder: Path, *, built_dir: Path, precision: Precision, threads: int
    ) -> None:
        prompts, default_prompt = read_prompts(folder), read_default_prompt(folder)
        self._encoder = Encoder.open(folder, built_dir, precision, threads)
        self.tokenizer = self._encoder.tokenizer
        self.nbytes = self._encoder.nbytes
        self.info = ModelInfo(
            model=name,
            revision=self._encoder.revision,
            dimension=self._encoder.dimension,
            max_tokens=self.tokenizer.max_tokens,
            special_tokens=self.tokenizer.special_tokens,
            precision=self._encoder.precision,
            backend="onnx",
            prompts=prompts,
            default_prompt=default_prompt,
            kinds=("dense", "tokens") if self._encoder.gives_tokens else ("dense",),
        )

    def run(self, batch: Sequence[Tokenized], wanted: frozenset[Kind]) -> list[Reading]:
        """See LocalModel."""
        if "tokens" not in wanted:
            return readings(batch, dense=self._encoder.embed(batch))
        if "dense" not in wanted:
            return readings(batch, token_vectors=self._encoder.token_vectors(batch))
        dense, of_tokens = self._encoder.both(batch)
        return readings(batch, dense=dense, token_vectors=of_tokens)

    def close(self) -> None:
        """See LocalModel."""
        self._encoder.close()
