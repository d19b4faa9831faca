"""A BERT-family encoder on ONNX Runtime: the default, needs no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

from services.embed.models.base import ModelInfo, Vectors
from services.embed.models.prompts import read_prompts
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import Tokenized
from shared.settings import Precision


class OnnxModel:
    """An EmbeddingModel over a folder of safetensors weights.

    built_dir: where the graph that is built from them is kept. Raises ModelError (a StartupError)
    where the folder can't be used.
    """

    def __init__(
        self, name: str, folder: Path, *, built_dir: Path, precision: Precision, threads: int
    ) -> None:
        self._encoder = Encoder.open(folder, built_dir, precision, threads)
        self._folder = folder
        self.info = ModelInfo(
            model=name,
            revision=self._encoder.revision,
            dimension=self._encoder.dimension,
            max_tokens=self._encoder.tokenizer.max_tokens,
            special_tokens=self._encoder.tokenizer.special_tokens,
            precision=precision,
            backend="onnx",
            prompts=read_prompts(folder),
        )

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See EmbeddingModel."""
        return self._encoder.tokenizer.tokenize(texts)

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """See EmbeddingModel."""
        return self._encoder.embed(batch)

    def token_vectors(self, batch: Sequence[Tokenized]) -> list[Vectors]:
        """See EmbeddingModel."""
        return self._encoder.token_vectors(batch)

    def tokenizer_json(self) -> bytes:
        """See EmbeddingModel."""
        return (self._folder / "tokenizer.json").read_bytes()
