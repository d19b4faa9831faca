"""What goes over the wire about reindexing, rollback and moving to another engine."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from services.retrieve.corpus.protocol import Body
from services.retrieve.corpus.settings_protocol import ChunkerName, Dimension, Embedder
from services.retrieve.stores.corpus import EngineName
from shared.moment import Moment

Share = Annotated[float, Field(ge=0, le=1)]


class JudgedQuery(Body):
    """A question with the documents that answer it; relevant: grade by document id, 1 or more."""

    query: Annotated[str, Field(min_length=1, max_length=8192)]
    relevant: Annotated[
        dict[str, Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=1000)
    ]


class ReindexRequest(Body):
    """How the next generation of a corpus is to be; what is left out stays as it is.

    embedder: name of a model of embed's, "" for its default one. dimension: so many of the first
    numbers of its vectors; left out, all of another model's. engine: where it is kept.
    judged, margin: nDCG@10 of the judged queries must not be lower than that of the live generation
    by more than the margin. canary_margin: the same for the share of documents that are found by
    the text of a chunk of their own. keep_days: how long the present generation is kept for a
    rollback. dry_run: say what it would take, and do nothing. force: build anew though nothing
    changes. qdrant: `host:port` that retrieve's Qdrant must have; with another it is refused.
    """

    embedder: Embedder | None = None
    dimension: Dimension | None = None
    language: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    chunk_tokens: Annotated[int, Field(ge=32, le=8192)] | None = None
    chunk_overlap: Annotated[int, Field(ge=0, le=1024)] | None = None
    chunker: ChunkerName | None = None
    engine: EngineName | None = None
    judged: Annotated[tuple[JudgedQuery, ...], Field(max_length=1000)] = ()
    margin: Share = 0.02
    canary_margin: Share = 0.1
    keep_days: Annotated[float, Field(ge=0, le=365)] = 7.0
    dry_run: bool = False
    force: bool = False
    qdrant: Annotated[str, Field(max_length=300)] | None = None


class RollbackRequest(Body):
    """keep_days: how long the generation that is given up is kept."""

    keep_days: Annotated[float, Field(ge=0, le=365)] = 7.0


class Rollback(RollbackRequest):
    """What a rollback's job is asked: to which generation, by when that was begun, and which engine
    has it."""

    made_at: Moment
    engine: EngineName


class Made(Body):
    """How a generation is made: model and its revision, dimension, chunker, language, engine."""

    model: str
    revision: str
    dimension: int
    chunker: str
    chunk_tokens: int
    chunk_overlap: int
    language: str
    sparse: bool
    engine: EngineName


class Estimate(Body):
    """What a reindex would take, from a sample of documents.

    reused: share of chunks whose vectors can be taken over. seconds: at the rate at which embed
    answered the sample. bytes: what the next generation takes on the disk beside the present one.
    """

    now: Made
    then: Made
    documents: int
    sampled: int
    chunks: int
    reused: float
    seconds: float
    bytes: int


class GenerationLine(Body):
    """A generation of a corpus. until: when a previous one is removed."""

    number: int
    state: Literal["live", "dark", "previous"]
    made: Made
    documents: int
    chunks: int
    made_at: Moment
    until: Moment | None


class GenerationList(Body):
    """All generations of a corpus, by their numbers."""

    generations: Sequence[GenerationLine]
