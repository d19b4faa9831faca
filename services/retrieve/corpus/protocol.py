"""What goes over the wire about corpora and documents: every body, with its limits."""

import json
import math
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from services.retrieve.stores.base import DocumentFormat, JsonScalar

CORPUS_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MAX_TEXT_CHARACTERS = 2_000_000
_MAX_METADATA_KEYS = 64
_MAX_METADATA_STRING = 4096
_MAX_METADATA_LIST = 256
_MAX_METADATA_CHARACTERS = 65_536
Values = TypeVar("Values", bound=Sequence[Any])
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


def distinct(values: Values) -> Values:
    """The values, none of them twice. Raises ValueError."""
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
Reader = Annotated[Line, Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """A body of our own API: unknown fields are refused, NaN and infinity are not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- corpora ---------------------------------------------------------------------------------


class CorpusSettings(Body):
    """What the owner of a corpus chooses; what is left out is the suite's default.

    chunk_tokens: longest chunk as the embedder sees it. chunk_overlap: tokens that neighbours
    share, less than half of it. language: ISO 639-1 code that picks the analyser of words, or `mul`
    for several. curate: whether searches that do not say are curated.
    """

    description: Annotated[str, Field(max_length=2000)] = ""
    language: Annotated[str, Field(max_length=64)] = "en"
    chunk_tokens: Annotated[int, Field(ge=32, le=8192)] | None = None
    chunk_overlap: Annotated[int, Field(ge=0, le=1024)] | None = None
    curate: bool | None = None


class Corpus(Body):
    """A corpus as it is: its settings, the stamp of its vectors, its counts.

    writes: how many writes changed something. sparse: whether its chunks have sparse vectors, too.
    """

    name: str
    description: str
    language: str
    model: str
    revision: str
    dimension: int
    chunk_tokens: int
    chunk_overlap: int
    curate: bool
    sparse: bool
    documents: int
    chunks: int
    writes: int
    created_at: datetime


class CorpusList(Body):
    """The corpora that the caller may read."""

    corpora: list[Corpus]


# --- documents -------------------------------------------------------------------------------


class Document(Body):
    """A document to store. A document with the same id is replaced whole.

    readers: names of keys and of their groups who may read it; null is everyone who may read the
    corpus.
    """

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
    readers: Annotated[list[Reader], Field(max_length=256), AfterValidator(distinct)] | None = None


class DocumentBatch(Body):
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


class DocumentVerdict(Body):
    """What became of one document. chunks: how many it has now."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    chunks: int


class IngestResponse(Body):
    """The verdicts in the order of the request, and the corpus's counts after it."""

    results: list[DocumentVerdict]
    documents: int
    chunks: int
    writes: int


class DocumentLine(Body):
    """A document in a list. chunks is a count."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    updated_at: datetime


class DocumentPage(Body):
    """A page of documents in the order of their ids. next: what to send as `after`, or null."""

    documents: list[DocumentLine]
    next: str | None


class DocumentBody(DocumentLine):
    """A whole document. text: as parsed, which the offsets of its chunks refer to.

    version: counts its writes from 1. readers: for those who may change the corpus, else null.
    """

    format: DocumentFormat
    metadata: dict[str, JsonScalar | list[str]]
    readers: list[str] | None = None
    text: str
    version: int
