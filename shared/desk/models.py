"""What the desk takes and answers, as typed values. Fields that a newer desk adds are ignored."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict

Scalar = str | int | float | bool
Metadata = dict[str, Scalar | list[str]]
DocumentFormat = Literal[
    "text", "markdown", "html", "pdf", "docx", "pptx", "xlsx", "csv", "json", "eml", "code"
]


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# --- what is sent ----------------------------------------------------------------------------


class Stamp(_Value):
    """The model that made a document's vectors, as the `Corpus` that it is for tells it."""

    model: str
    revision: str
    dimension: int


class SparseVector(_Value):
    """Token ids, ascending, and their weights, above 0."""

    indices: list[int]
    values: list[float]


class GivenChunk(_Value):
    """A chunk that was cut and embedded elsewhere. start, end: character offsets into the text.

    vector: numbers, or base64 of little-endian float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int
    end: int
    vector: list[float] | str
    sparse: SparseVector | None = None


class NewDocument(_Value):
    """A document to store; one with the same id is replaced whole.

    readers: names of keys and of their groups who may read it; None is everyone who may read the
    corpus. chunks: with a stamp that is the corpus's own they are stored as they are; None leaves
    cutting and embedding to the desk.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    text: str
    title: str | None = None
    url: str | None = None
    format: DocumentFormat = "text"
    metadata: Metadata = {}
    readers: list[str] | None = None
    chunks: list[GivenChunk] | None = None
    stamp: Stamp | None = None


class Fusion(TypedDict, total=False):
    """How the arms' lists become one."""

    method: str
    k: float
    weights: dict[str, float]


class RecencyDefault(TypedDict, total=False):
    """How much younger documents are preferred, in searches of a corpus that do not say."""

    half_life_days: float
    weight: float
    field: str | None


class Recency(RecencyDefault, total=False):
    """How much younger documents are preferred in a search. when: in every one, or where the
    question asks for something recent."""

    when: Literal["always", "asked"]


class Expand(TypedDict, total=False):
    """Other wordings to search for. queries: how many. hyde: whether a made-up passage, too."""

    queries: int
    hyde: bool


class TextPart(TypedDict):
    """A piece of a turn's text, in OpenAI's form."""

    type: Literal["text"]
    text: str


class Turn(TypedDict):
    """A turn of a conversation, in OpenAI's form. Those of the role `system` are not read."""

    role: Literal["user", "assistant", "system"]
    content: str | list[TextPart]


class Options(TypedDict, total=False):
    """The options of a search, those of POST /retrieve; what is left out is left to the desk.

    So is what is None, but for `recency`: None is none at all, also where a corpus prefers what is
    young.
    """

    top_k: int | None
    candidates: int | None
    rerank_window: int | None
    arms: Sequence[str] | None
    fusion: Fusion | None
    recency: Recency | None
    filter: Mapping[str, Any] | None
    curate: bool | Literal["auto"] | None
    min_score: float | None
    max_tokens: int | None
    tokenizer: str | None
    neighbors: int | Literal["document"] | None
    diversity: float | None
    expand: Expand | None
    explain: bool | None


# --- what is answered ------------------------------------------------------------------------


class CorpusRecency(_Value):
    """How much younger documents are preferred, in searches that do not say. field: the metadata
    that holds a document's date; None is when it was last written."""

    half_life_days: float
    weight: float
    field: str | None


class Corpus(_Value):
    """A corpus: its settings, the model of its vectors, its counts.

    chunker: what cut its chunks. readers: for a key that may change the corpus, else None. sparse:
    whether its chunks have sparse vectors, too. writes: how many changed something. generation:
    counts from 1, one more with each reindex. engine: the kind of store that holds it. rebuilding:
    the arms whose index is built anew just now, and how much of it is there, 0 to 1.
    """

    name: str
    description: str
    language: str
    model: str
    revision: str
    dimension: int
    chunk_tokens: int
    chunk_overlap: int
    chunker: str
    curate: bool
    recency: CorpusRecency | None
    readers: list[str] | None
    sparse: bool
    documents: int
    chunks: int
    writes: int
    generation: int
    engine: Literal["local", "qdrant"]
    created_at: datetime
    rebuilding: dict[str, float] = {}


class Fault(_Value):
    """Why a document was not stored. type: the family of the error. code: a stable word for
    programs. param: the field at fault, if one is."""

    message: str
    type: str
    code: str
    param: str | None = None


class Verdict(_Value):
    """What became of a document. chunks: how many it has now. error: of one that failed."""

    id: str
    status: Literal["created", "replaced", "unchanged", "failed"]
    chunks: int = 0
    error: Fault | None = None


class Ingested(_Value):
    """The verdicts in the order of the documents, and the corpus's counts after it."""

    results: list[Verdict]
    documents: int
    chunks: int
    writes: int


class DocumentLine(_Value):
    """A document in a list. chunks is a count."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    updated_at: datetime


class DocumentPage(_Value):
    """A page of documents in the order of their ids. next: where to go on; None at the end."""

    documents: list[DocumentLine]
    next: str | None


class Document(DocumentLine):
    """A whole document. text: as parsed, which the offsets of its passages refer to.

    version: counts its writes from 1.
    """

    format: DocumentFormat
    metadata: Metadata
    readers: list[str] | None = None
    text: str
    version: int


class Position(_Value):
    """Where a passage is in its document: chunk `chunk` (from 0) of `chunks`.

    start, end: character offsets in the document's parsed text; bytes: the same in its UTF-8.
    headings: those that it stands under, outermost first. pages: the first and the last it touches,
    from 1. code: the language, where all of it is code. rows: the first and the last row of the
    table that it is a part of, from 0.
    """

    chunk: int
    chunks: int
    start: int
    end: int
    bytes: tuple[int, int] | None = None
    headings: tuple[str, ...] = ()
    pages: tuple[int, int] | None = None
    code: str | None = None
    rows: tuple[int, int] | None = None


class Twin(_Value):
    """A passage that says the same as a hit, in another place."""

    id: str
    document_id: str
    corpus: str


class Hit(_Value):
    """A passage that answers. score: 0..1, never rising along the hits unless diversity moved them.

    rank: from 1. tokens: of `text`. duplicates: passages elsewhere that say the same. explain: why
    it is in its place, if that was asked for.
    """

    id: str
    document_id: str
    corpus: str
    title: str | None
    url: str | None
    text: str
    score: float
    rank: int
    metadata: Metadata
    position: Position
    tokens: int
    duplicates: list[Twin] = []
    explain: dict[str, Any] | None = None

    @property
    def all_metadata(self) -> dict[str, Any]:
        """The document's metadata and, over it, `corpus`, `document_id`, `title` and `url`."""
        ours = {"corpus", "document_id", "title", "url"}
        return {**self.metadata, **self.model_dump(include=ours)}


class Signals(_Value):
    """How well the search itself thinks it did; all but `documents` are 0..1.

    freshness: of the best hit; None where nothing says how old it is.
    """

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int
    freshness: float | None = None


class Dropped(_Value):
    """A passage that was left out, and why."""

    id: str
    corpus: str
    reason: str


class Skipped(_Value):
    """A stage that was left out on purpose, and why."""

    stage: str
    reason: str


class Searched(_Value):
    """What was searched for. how: what was done to the question for it. variants: other wordings
    that were searched for, too."""

    query: str
    how: str
    variants: list[str] = []


class Retrieved(_Value):
    """The passages that answer, best first, with how they were found.

    degraded: stages that failed; empty when all is well. timings_ms: milliseconds of each stage and
    in `total`.
    """

    query_id: str
    hits: list[Hit]
    signals: Signals
    dropped: list[Dropped]
    searched: Searched
    skipped: list[Skipped]
    degraded: list[str]
    timings_ms: dict[str, float]


class ArmVerdict(_Value):
    """One arm's view of a chunk. rank: in its list, None where it is not in it. score: raw.

    last: that of the last of its list, which the chunk had to reach; None where the list is not
    full.
    """

    rank: int | None
    score: float | None
    last: float | None


class ChunkVerdict(_Value):
    """How far a chunk came. reason: a stable word; message: the same in a sentence.

    fused_rank: None where it is no candidate. relevance: the curator's, None where it did not read
    it. rank: in the final order.
    """

    id: str
    corpus: str
    arms: dict[str, ArmVerdict]
    fused_rank: int | None
    relevance: float | None
    rank: int | None
    score: float | None
    reason: str
    message: str


class WhyNot(_Value):
    """Why a document is not among the hits, or that it is.

    reason, message: those of the chunk that came farthest. chunks: all of the document's, those
    that came farthest first. degraded: stages that failed.
    """

    document_id: str
    reason: str
    message: str
    chunks: list[ChunkVerdict]
    searched: Searched
    degraded: list[str]
