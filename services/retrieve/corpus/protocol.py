"""What goes over the wire about corpora and documents: every body, with its limits."""

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from services.retrieve.stores.base import DocumentFormat, JsonScalar
from shared.errors import ApiError, ErrorFields, refusal, shown
from shared.moment import Moment

CORPUS_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
# Of a document in a job: as much as a file of 64 MiB can hold. One whose line of NDJSON is over
# MAX_LINE_BYTES comes back by Parquet alone.
MAX_TEXT_CHARACTERS = 64 * 1024 * 1024
MAX_AT_ONCE_CHARACTERS = 2_000_000  # of a document that a request waits for
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


# --- documents -------------------------------------------------------------------------------


class Stamp(Body):
    """The model that made a document's vectors, as `GET /corpora/NAME` tells it."""

    model: Annotated[str, Field(max_length=256)]
    revision: Annotated[str, Field(max_length=256)]
    dimension: Annotated[int, Field(ge=1, le=65_536)]


class SparseVector(Body):
    """Token ids, ascending, and their weights, above 0."""

    indices: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=65_536)]
    values: Annotated[list[float], Field(max_length=65_536)]


class GivenChunk(Body):
    """A chunk that was cut and embedded elsewhere. start, end: character offsets into `text`.

    vector: numbers, or base64 of little-endian float32.
    """

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    vector: Annotated[list[float], Field(max_length=65_536)] | str
    sparse: SparseVector | None = None


class Document(Body):
    """A document to store. A document with the same id is replaced whole.

    readers: names of keys and of their groups who may read it; null is everyone who may read the
    corpus. format: of `text`; one of a binary file (pdf, docx, …) says what the text was taken
    from. chunks: with a stamp that is the corpus's own, they are stored as they are, and `text` is
    what they were cut from.
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
    chunks: Annotated[list[GivenChunk], Field(min_length=1, max_length=100_000)] | None = None
    stamp: Stamp | None = None

    @model_validator(mode="after")
    def _chunks_are_stamped(self) -> Self:
        if (self.chunks is None) != (self.stamp is None):
            raise ValueError("chunks and stamp go together: vectors need to say what made them")
        return self


class FileLabels(Body):
    """What is to be known of an uploaded file. file: its name, as in its part of the form.

    id: of the document; null is the file's name. format: null is what the file is found to be.
    """

    file: Annotated[str, Field(min_length=1, max_length=512)]
    id: Annotated[Line, Field(min_length=1, max_length=512), AfterValidator(_not_blank)] | None = (
        None
    )
    title: Annotated[str, Field(max_length=1024)] | None = None
    url: Annotated[Line, Field(max_length=2048), AfterValidator(_no_script)] | None = None
    format: DocumentFormat | None = None
    metadata: Annotated[
        dict[MetadataKey, MetadataValue],
        Field(max_length=_MAX_METADATA_KEYS),
        AfterValidator(_not_too_large),
    ] = {}
    readers: Annotated[list[Reader], Field(max_length=256), AfterValidator(distinct)] | None = None


@dataclass(frozen=True)
class Unfit:
    """What was sent as a document and is none. id: its id as far as it has one that can be shown.

    place: the field at fault, words: what is wrong with it.
    """

    id: str
    place: tuple[str | int, ...]
    words: str
    code: str = "invalid_request"

    def error(self, *where: str | int) -> ApiError:
        """As the error for what stands at `where` in the request."""
        told = refusal((*where, *self.place), self.words)
        return ApiError(told.status, self.code, told.message, param=told.param)


def document_or_unfit(value: object) -> Document | Unfit:
    """A document, from what JSON holds; what is none is told apart rather than raised."""
    try:
        return Document.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return Unfit(shown_id(value), fault["loc"], fault["msg"])


def shown_id(value: object) -> str:
    """The id in something that may be a document, as far as it has one; else nothing."""
    found = value.get("id") if isinstance(value, dict) else None
    return shown(found, 512) if isinstance(found, str) else ""


class DocumentBatch(Body):
    """Documents to store, each of at most 2,000,000 characters; a job takes longer ones.

    atomic: all of them or none; else one at fault keeps out itself alone.
    """

    documents: Annotated[
        list[
            Annotated[
                Document | Unfit, PlainValidator(document_or_unfit, json_schema_input_type=Document)
            ]
        ],
        Field(min_length=1, max_length=256),
    ]
    atomic: bool = False

    @model_validator(mode="after")
    def _each_is_short_and_sent_once(self) -> Self:
        seen: dict[str, int] = {}
        for place, document in enumerate(self.documents):
            if isinstance(document, Document) and len(document.text) > MAX_AT_ONCE_CHARACTERS:
                words = (
                    f"has {len(document.text)} characters, and at most {MAX_AT_ONCE_CHARACTERS} "
                    "are stored while a request waits: send it to /ingest, which makes a job of it"
                )
                self.documents[place] = Unfit(document.id, ("text",), words)
            first = seen.setdefault(document.id, place)
            if first != place and isinstance(document, Document):
                words = f"is the id of documents.{first}, too; send each document once"
                self.documents[place] = Unfit(document.id, ("id",), words, "duplicate_id")
        return self


class DocumentVerdict(Body):
    """What became of one document. chunks: how many it has now. error: why it was not stored."""

    id: str
    status: Literal["created", "replaced", "unchanged", "failed"]
    chunks: int = 0
    error: ErrorFields | None = None


class IngestResponse(Body):
    """The verdicts in the order of the request, and the corpus's counts after it."""

    results: list[DocumentVerdict]
    documents: int
    chunks: int
    writes: int


class IngestLimits(Body):
    """How large what is loaded may be, in bytes: a whole body, a file in it (unpacked, in a ZIP),
    a line of NDJSON."""

    max_upload_bytes: int
    max_file_bytes: int
    max_line_bytes: int


class DocumentState(Body):
    """A document as its owner has it now. sha256: of its bytes, before any parsing, in hex; of a
    document that is sent as JSON those of its `text` as UTF-8.

    format: as it would be sent with the document; null for an uploaded file.
    """

    id: Annotated[Line, Field(min_length=1, max_length=512)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    format: DocumentFormat | None = None
    title: Annotated[str, Field(max_length=1024)] | None = None
    url: Annotated[Line, Field(max_length=2048)] | None = None
    metadata: dict[MetadataKey, MetadataValue] = {}
    readers: Annotated[list[Reader], Field(max_length=256)] | None = None


class ChangesRequest(Body):
    """The documents to compare with those that are stored."""

    documents: Annotated[list[DocumentState], Field(max_length=10_000)]


class ChangesResponse(Body):
    """changed: the ids of those that are not stored as they are now, in the order of the request.
    unchanged: how many are."""

    changed: list[str]
    unchanged: int


class DeleteRequest(Body):
    """The ids of documents to remove."""

    ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=512)]],
        Field(min_length=1, max_length=10_000),
    ]


class DeleteResponse(Body):
    """deleted: those that were there. missing: those that were not. In the order of the request,
    each once."""

    deleted: list[str]
    missing: list[str]


class DocumentLine(Body):
    """A document in a list. chunks is a count."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    updated_at: Moment


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
