"""What goes over the wire about corpora themselves: settings, counts, figures."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from services.retrieve.corpus.protocol import (
    Body,
    DocumentLine,
    MetadataKey,
    Reader,
    distinct,
)
from services.retrieve.stores.corpus import EngineName
from shared.moment import Moment


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which not every database takes; remove it")
    return value


Description = Annotated[str, Field(max_length=2000), AfterValidator(_no_nul)]
Embedder = Annotated[str, Field(max_length=256)]  # "" is embed's default model
Dimension = Annotated[int, Field(ge=1, le=65_536)]
ChunkerName = Annotated[str, Field(min_length=1, max_length=64)]
CorpusReaders = Annotated[list[Reader], Field(max_length=256), AfterValidator(distinct)]


class RecencyBody(Body):
    """How much younger documents are preferred.

    half_life_days: after so many days a document's lift is halved. weight: of the list of dates in
    the fusion, where each arm has 1 by default. field: the metadata that holds a document's date
    (ISO 8601, or seconds since 1970); null is when it was last written.
    """

    half_life_days: Annotated[float, Field(gt=0, le=36_500)] = 30
    weight: Annotated[float, Field(gt=0, le=1)] = 0.1
    field: MetadataKey | None = None


class CorpusSettings(Body):
    """What the owner of a corpus chooses; what is left out is the suite's default, or what a corpus
    that is there has.

    embedder: a model that embed serves, "" for its default one. dimension: so many of the first
    numbers of its vectors, which a model may be made for; all of them where it is left out.
    chunker: what cuts the documents. chunk_tokens: longest chunk as the embedder sees it.
    chunk_overlap: tokens that neighbours share, at most a quarter of it. language: ISO 639-1 code
    that picks the analyser of words, or `mul` for several. curate, recency: of searches that do not
    say. readers: names of keys and of their groups who may read the corpus at all; null is everyone
    whose key names it.
    """

    description: Description = ""
    language: Annotated[str, Field(max_length=64)] | None = None
    embedder: Embedder | None = None
    dimension: Dimension | None = None
    chunker: ChunkerName | None = None
    chunk_tokens: Annotated[int, Field(ge=32, le=8192)] | None = None
    chunk_overlap: Annotated[int, Field(ge=0, le=1024)] | None = None
    curate: bool | None = None
    recency: RecencyBody | None = None
    readers: CorpusReaders | None = None


class CorpusChange(Body):
    """What may change of a corpus at any time. What is left out stays, null is what a new corpus
    has."""

    description: Description | None = None
    curate: bool | None = None
    recency: RecencyBody | None = None
    readers: CorpusReaders | None = None


class Corpus(Body):
    """A corpus as it is: its settings, the stamp of its vectors, its counts.

    writes: how many writes changed something. sparse: whether its chunks have sparse vectors, too.
    readers: for those who may change the corpus, else null. chunker: what cut its chunks.
    generation: counts from 1, one more with each reindex. engine: the kind of store that holds it.
    rebuilding: the arms whose index is built anew just now, and how much of it is there, 0 to 1;
    searches go without them meanwhile. In Qdrant words of another version of refdesk stay at 0
    until the corpus is reindexed.
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
    recency: RecencyBody | None
    readers: list[str] | None
    sparse: bool
    documents: int
    chunks: int
    writes: int
    generation: int
    engine: EngineName
    created_at: Moment
    rebuilding: dict[str, float] = Field(default_factory=dict)


class GenerationBody(Body):
    """A generation of a corpus. state: `live`, `dark` (being built) or `previous` (kept for a
    rollback, until `until`)."""

    generation: int
    state: Literal["live", "dark", "previous"]
    model: str
    revision: str
    chunker: str
    documents: int
    chunks: int
    made_at: Moment
    until: Moment | None


class CorpusStats(Body):
    """A corpus in numbers.

    tokens: of all chunks. formats: how many documents of each. last_write: null where there is no
    document. longest: the ten documents with the most chunks. bytes: on the disk, by kind of file.
    What the corpus's engine can't count is null.
    """

    documents: int
    chunks: int
    tokens: int | None
    formats: dict[str, int] | None
    last_write: Moment | None
    longest: list[DocumentLine]
    bytes: dict[str, int] | None
    generations: list[GenerationBody]


class CorpusList(Body):
    """The corpora that the caller may read."""

    corpora: list[Corpus]
