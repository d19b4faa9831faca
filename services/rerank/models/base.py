"""What every backend of the curator offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class ModelInfo:
    """A model as it is served. max_tokens: longest text that is read whole, in tokens."""

    model: str
    revision: str
    max_tokens: int
    precision: str
    backend: Literal["late-interaction"]


@dataclass(frozen=True)
class Scored:
    """Relevance of each document to the query, 0..1, in the order given.

    tokens: of the query and all documents, as the model reads them, special tokens included.
    """

    scores: list[float]
    tokens: int


class RerankModel(Protocol):
    """A model that judges documents against a query."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    async def score(self, query: str, documents: Sequence[str]) -> Scored:
        """Judge every document. Raises ApiError 429 while the queue is full."""
        ...

    async def close(self) -> None:
        """Release the model."""
        ...
