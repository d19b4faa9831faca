"""What every backend of the curator offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from shared.encoder.tokenizer import Keep


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
    Of each document, in the same order: raw_scores: what the model itself says, before it is
    brought to 0..1; document_tokens: its share of `tokens`; truncated: how many more tokens it has
    than were read. query_truncated: the same of the query.
    """

    scores: list[float]
    raw_scores: list[float]
    tokens: int
    document_tokens: list[int]
    truncated: list[int]
    query_truncated: int


class RerankModel(Protocol):
    """A model that judges documents against a query."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep: Keep = "start",
    ) -> Scored:
        """Judge every document. Raises ApiError 429 while the queue is full.

        max_tokens: read so many tokens of each document at most, special ones not counted; None:
        as many as the model can. keep: which part of a longer document is read.
        """
        ...

    async def close(self) -> None:
        """Release the model."""
        ...
