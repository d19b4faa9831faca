"""What every backend of the curator offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.encoder.tokenizer import Keep
from shared.settings import RerankBackend

UNCALIBRATED = "none"  # ModelInfo.calibration where nothing was fitted
# The log-odds of a document without a word: below what any model says of one that it has read.
BLANK_LOGIT = -100.0


@dataclass(frozen=True)
class ModelInfo:
    """A model as it is served.

    max_tokens: longest text that is read whole, in tokens; of a model that reads query and document
    together, longest pair; None where a remote model does not say. calibration: how its own scores
    were brought to 0..1, UNCALIBRATED where nothing was fitted.
    """

    model: str
    revision: str
    max_tokens: int | None
    precision: str
    backend: RerankBackend
    calibration: str


class TextTooLongError(Exception):
    """A text that should be read whole is longer than the model can read; nothing was run.

    place: of the document in the request; None: the query. tokens: that it has. limit: how many
    of them the model reads.
    """

    def __init__(self, place: int | None, tokens: int, limit: int) -> None:
        super().__init__(place, tokens, limit)
        self.place = place
        self.tokens = tokens
        self.limit = limit


def require_whole(query_cut: int, document_cuts: Sequence[int], limit: int) -> None:
    """Raise TextTooLongError for the first text that is cut, where each is read up to `limit`."""
    for place, cut in [(None, query_cut), *enumerate(document_cuts)]:
        if cut:
            raise TextTooLongError(place, limit + cut, limit)


@dataclass(frozen=True)
class Scored:
    """Relevance of each document to the query, 0..1, in the order given.

    tokens: of the query and all documents, as the model reads them, special tokens included; None
    where a remote model does not tell. Of each document, in the same order: raw_scores: what the
    model itself says, before it is brought to 0..1; document_tokens: its share of `tokens`, None
    where that is not known; truncated: how many more tokens it has than were read, 0 where that is
    not known. query_truncated: the same of the query.
    """

    scores: list[float]
    raw_scores: list[float]
    tokens: int | None
    document_tokens: list[int] | None
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
        whole: bool = False,
    ) -> Scored:
        """Judge every document. Raises ApiError 429 while the queue is full.

        max_tokens: read so many tokens of each document at most, special ones not counted; None:
        as many as the model can. keep: which part of a longer document is read. whole: raise
        TextTooLongError, before anything is run, where a text would not be read whole.
        """
        ...

    async def close(self) -> None:
        """Release the model."""
        ...
