"""What every backend of the librarian offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.encoder.tokenizer import Tokenized

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ModelInfo:
    """A model as it is served.

    revision: changes whenever the vectors do (weights or precision). dimension: of a vector.
    max_tokens: longest input that reaches the model whole, special_tokens of them its own.
    prompts: what the model wants before a text, by the name of its use, such as ``query``.
    """

    model: str
    revision: str
    dimension: int
    max_tokens: int
    special_tokens: int
    precision: str
    backend: Literal["onnx", "sentence-transformers"]
    prompts: dict[str, str]


class EmbeddingModel(Protocol):
    """A model that turns texts into vectors. `tokenize` may be called from any thread, `embed`
    and `token_vectors` from one at a time.
    """

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """The token ids of each text, cut to the model's window."""
        ...

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """Unit vectors, float32 [n, dimension], in the order of the batch."""
        ...

    def token_vectors(self, batch: Sequence[Tokenized]) -> list[Vectors]:
        """A unit vector for each token, special ones included: float32 [t, d] for each text."""
        ...

    def tokenizer_json(self) -> bytes:
        """The tokenizer's definition, for those who count tokens as the model does."""
        ...
