"""An encoder on ONNX Runtime: the default, needs no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

from services.embed.models.base import Kind, ModelInfo, Reading
from services.embed.models.prompts import read_default_prompt, read_prompts
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import TOKENIZER_FILE, Keep, Tokenized
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
        self._definition = folder / TOKENIZER_FILE
        self.nbytes = self._encoder.nbytes
        self.info = ModelInfo(
            model=name,
            revision=self._encoder.revision,
            dimension=self._encoder.dimension,
            max_tokens=self._encoder.tokenizer.max_tokens,
            special_tokens=self._encoder.tokenizer.special_tokens,
            precision=self._encoder.precision,
            backend="onnx",
            prompts=prompts,
            default_prompt=default_prompt,
            kinds=("dense", "tokens") if self._encoder.gives_tokens else ("dense",),
        )

    def tokenize(self, texts: Sequence[str], keep: Keep = "start") -> list[Tokenized]:
        """See LocalModel."""
        return self._encoder.tokenizer.tokenize(texts, keep=keep)

    def run(self, batch: Sequence[Tokenized], wanted: frozenset[Kind]) -> list[Reading]:
        """See LocalModel."""
        if "tokens" not in wanted:
            vectors = self._encoder.embed(batch)
            return [
                Reading(len(text), text.cut, dense=vector)
                for text, vector in zip(batch, vectors, strict=True)
            ]
        if "dense" not in wanted:
            of_tokens = self._encoder.token_vectors(batch)
            return [
                Reading(len(text), text.cut, token_vectors=rows)
                for text, rows in zip(batch, of_tokens, strict=True)
            ]
        vectors, of_tokens = self._encoder.both(batch)
        return [
            Reading(len(text), text.cut, dense=vector, token_vectors=rows)
            for text, vector, rows in zip(batch, vectors, of_tokens, strict=True)
        ]

    def tokenizer_json(self) -> bytes:
        """See LocalModel."""
        return self._definition.read_bytes()

    def close(self) -> None:
        """See LocalModel."""
        self._encoder.close()
