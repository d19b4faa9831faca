"""What goes over the wire of the desk: every request and response body, with its limits."""

import json
import math
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from services.retrieve.search.candidates import Arm
from services.retrieve.search.fusion import FusionMethod
from services.retrieve.stores.base import DocumentFormat, JsonScalar

CORPUS_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MAX_TEXT_CHARACTERS = 2_000_000
_MAX_METADATA_KEYS = 64
_MAX_METADATA_STRING = 4096
_MAX_METADATA_LIST = 256
_MAX_METADATA_CHARACTERS = 65_536
_SCRIPT_SCHEMES = ("javascript:", "data:", "vbscript:")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank: there is nothing in it to work with")
    return value


def _no_controls(value: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("holds a control character, such as a line break; remove it")
    return value


def _no_script(value: str) -> str:
    if value.strip().lower().startswith(_SCRIPT_SCHEMES):
        raise ValueError("is a script, not the address of a document")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"names '{value}' twice")
    return values


def _metadata_value(value: object) -> object:
    """One message for whatever is wrong: a union would give one for each of its members."""
    if isinstance(value, str) and len(value) > _MAX_METADATA_STRING:
        raise ValueError(f"is a text of over {_MAX_METADATA_STRING} characters")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("is a whole number beyond 64 bits; send it as a text")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not a finite number")
    if isinstance(value, list):
        if len(value) > _MAX_METADATA_LIST:
            raise ValueError(f"is a list of over {_MAX_METADATA_LIST} texts")
        for one in value:
            if not isinstance(one, str) or len(one) > _MAX_METADATA_STRING:
                raise ValueError(
                    f"holds something that is not a text of at most {_MAX_METADATA_STRING} "
                    "characters; a list may hold only such texts"
                )
    elif not isinstance(value, str | int | float | bool):
        message = "must be a text, a number, true, false or a list of texts, nothing deeper"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns only ValueError into a 422
    return value


def _not_too_large(metadata: dict[str, JsonScalar | list[str]]) -> object:
    """All of a document's metadata goes with each of its passages that a search reads."""
    if len(json.dumps(metadata, ensure_ascii=False)) > _MAX_METADATA_CHARACTERS:
        raise ValueError(
            f"is over {_MAX_METADATA_CHARACTERS} characters as JSON; put what is long into the text"
        )
    return metadata


MetadataKey = Annotated[str, Field(min_length=1, max_length=128)]
MetadataValue = Annotated[JsonScalar | list[str], BeforeValidator(_metadata_value)]
Line = Annotated[str, AfterValidator(_no_controls)]
Weight = Annotated[float, Field(ge=1e-6, le=1000)]  # a smaller one makes every score 0


class _Body(BaseModel):
    """A body of our own API: unknown fields are refused, NaN and infinity are not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- corpora ---------------------------------------------------------------------------------


class CorpusSettings(_Body):
    """What the owner of a corpus chooses; what is left out is the suite's default.

    chunk_tokens: longest chunk as the embedder sees it. chunk_overlap: tokens that neighbours
    share, less than half of it. language: ISO 639-1 code that picks the analyser of words.
    """

    description: Annotated[str, Field(max_length=2000)] = ""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "en"
    chunk_tokens: Annotated[int, Field(ge=32, le=8192)] | None = None
    chunk_overlap: Annotated[int, Field(ge=0, le=1024)] | None = None


class Corpus(_Body):
    """A corpus as it is: its settings, the stamp of its vectors, its counts and generation."""

    name: str
    description: str
    language: str
    model: str
    revision: str
    dimension: int
    chunk_tokens: int
    chunk_overlap: int
    documents: int
    chunks: int
    generation: int
    created_at: datetime


class CorpusList(_Body):
    """The corpora that the caller may read."""

    corpora: list[Corpus]


# --- documents -------------------------------------------------------------------------------


class Document(_Body):
    """A document to store. A document with the same id is replaced whole."""

    id: Annotated[Line, Field(min_length=1, max_length=512), AfterValidator(_not_blank)]
    text: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS), AfterValidator(_not_blank)
    ]
    title: Annotated[str, Field(max_length=1024)] | None = None
    url: Annotated[Line, Field(max_length=2048), AfterValidator(_no_script)] | None = None
    format: DocumentFormat = "text"
    metadata: Annotated[
        dict[MetadataKey, MetadataValue],
        Field(max_length=_MAX_METADATA_KEYS),
        AfterValidator(_not_too_large),
    ] = {}


class DocumentBatch(_Body):
    """Documents that are stored together, or not at all."""

    documents: Annotated[list[Document], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _ids_are_distinct(self) -> Self:
        seen: dict[str, int] = {}
        for place, document in enumerate(self.documents):
            first = seen.setdefault(document.id, place)
            if first != place:
                raise ValueError(
                    f"documents.{place}.id is the id of documents.{first}, too; "
                    "send each document once"
                )
        return self


class DocumentVerdict(_Body):
    """What became of one document. chunks: how many it has now."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    chunks: int


class IngestResponse(_Body):
    """The verdicts in the order of the request, and the corpus's counts after it."""

    results: list[DocumentVerdict]
    documents: int
    chunks: int
    generation: int


class DocumentLine(_Body):
    """A document in a list. chunks is a count."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    updated_at: datetime


class DocumentPage(_Body):
    """A page of documents in the order of their ids. next: what to send as `after`, or null."""

    documents: list[DocumentLine]
    next: str | None


class DocumentBody(DocumentLine):
    """A whole document. text: as parsed, which the offsets of its chunks refer to.

    version: counts its writes from 1.
    """

    format: DocumentFormat
    metadata: dict[str, JsonScalar | list[str]]
    text: str
    version: int


# --- retrieve --------------------------------------------------------------------------------


class FusionWeights(_Body):
    """Each arm's weight in the fusion; an arm is left out by `arms`, not by a weight of 0."""

    bm25: Weight = 1.0
    dense: Weight = 1.0


class Fusion(_Body):
    """How the arms' lists become one. k: the constant of reciprocal rank fusion."""

    method: FusionMethod = FusionMethod.RRF
    k: Annotated[float, Field(ge=1, le=10_000)] = 60
    weights: FusionWeights = FusionWeights()


class RetrieveRequest(_Body):
    """A question to the desk.

    candidates: length of each arm's list per corpus. rerank_window: how many fused candidates the
    curator reads. min_score: least shown score of a hit. max_tokens: budget for all passages
    together, tokens of the corpora's own models; null is no budget. explain: say of each hit where
    every part of its place comes from.
    """

    query: Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_not_blank)]
    corpora: Annotated[
        list[Annotated[str, Field(max_length=256)]],
        Field(min_length=1, max_length=16),
        AfterValidator(_distinct),
    ]
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    candidates: Annotated[int, Field(ge=1, le=1000)] = 100
    rerank_window: Annotated[int, Field(ge=0, le=200)] = 50
    arms: Annotated[list[Arm], Field(min_length=1), AfterValidator(_distinct)] = [
        Arm.BM25,
        Arm.DENSE,
    ]
    fusion: Fusion = Fusion()
    curate: bool = True
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    explain: bool = False


class Position(_Body):
    """Where a passage is in its document: chunk `chunk` (from 0) of `chunks`.

    start, end: character offsets in the document's parsed text.
    """

    chunk: int
    chunks: int
    start: int
    end: int


class ArmExplanation(_Body):
    """One arm's view of a hit: rank in the arm's list (null if not in it) and raw score.

    score: BM25 or cosine; null if it was not needed. share: what the arm gave to the fused score.
    """

    rank: int | None
    score: float | None
    share: float


class CurationExplanation(_Body):
    """How the curator changed a hit's place.

    relevance: the curator's score, 0..1. z: z-scores over the window; the curator's are those of
    the log-odds of its score. blended: their mean, which orders the window. rank_before,
    rank_after: place before and after curation, from 1.
    """

    relevance: float
    z: dict[str, float]
    blended: float
    rank_before: int
    rank_after: int


class Explanation(_Body):
    """Why a hit is where it is. fused_score: the sum of the arms' shares, fused_rank its place."""

    arms: dict[Arm, ArmExplanation]
    fused_score: float
    fused_rank: int
    curation: CurationExplanation | None


class Hit(_Body):
    """A passage that answers. score: 0..1, never rising along the hits; see docs on scores.

    rank: from 1. tokens: of `text`, as the corpus's own model counts them.
    """

    id: str
    document_id: str
    corpus: str
    title: str | None
    url: str | None
    text: str
    score: float
    rank: int
    metadata: dict[str, JsonScalar | list[str]]
    position: Position
    tokens: int
    explain: Explanation | None = None


class SignalsBody(_Body):
    """How well the search itself thinks it did; see docs on signals. All but the last are 0..1."""

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int


class DroppedBody(_Body):
    """What was left out of the hits, and why.

    A chunk deleted while the search ran has no id any more; it goes by its key in the store.
    """

    id: str
    corpus: str
    reason: Literal["below_min_score", "over_budget", "deleted"]


class RetrieveResponse(_Body):
    """The passages that answer, best first, with how they were found.

    degraded: the stages that failed or were left out (`dense`, `curate`); empty when all is well.
    timings_ms: milliseconds per stage, 0 where a stage did not run; bm25 and embed overlap.
    """

    query_id: str
    hits: list[Hit]
    signals: SignalsBody
    dropped: list[DroppedBody]
    degraded: list[Literal["dense", "curate"]]
    timings_ms: dict[str, float]
