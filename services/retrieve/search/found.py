"""What a search has found so far, from the first stage to the ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.retrieve.protocol import RetrieveRequest, Skipped
from services.retrieve.search.candidates import Arm, ChunkKey, Run, Vectors
from services.retrieve.search.curate import Ranked
from services.retrieve.search.fusion import Fused
from services.retrieve.search.question import Question
from services.retrieve.search.watch import Degraded
from services.retrieve.stores.base import ChunkRecord


@dataclass(frozen=True, slots=True)
class Found:
    """What the first stage found: the fused list, with texts and scores as far as it is read.

    runs: each arm's lists. vectors: of the queries. fused: all of the fused list. read:
    what of it is read, without what was deleted meanwhile. scores: each arm's exact raw scores of
    that, empty where neither curation nor explain asks for them. ages_days: of what is read.
    half_life_days: of the corpora of which the request, or the corpus itself, says one.
    """

    runs: Sequence[Run]
    vectors: Vectors
    fused: Sequence[Fused]
    read: Sequence[Fused]
    scores: Mapping[Arm, Mapping[ChunkKey, float]]
    records: Mapping[ChunkKey, ChunkRecord]
    ages_days: Mapping[ChunkKey, float | None]
    deleted: Sequence[ChunkKey]
    half_life_days: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Counters:
    """How tokens are counted. budget: those of `max_tokens`, None for the records' own numbers.
    own: as the model of a corpus counts; empty where embed does not say."""

    budget: Callable[[str], int] | None
    own: Mapping[str, Callable[[str], int]]


@dataclass(frozen=True)
class Search:
    """A search that is done, before what it found is selected and packed.

    relevance: the curator's scores of the window, empty where it did not judge.
    """

    request: RetrieveRequest
    question: Question
    found: Found
    relevance: Mapping[ChunkKey, float]
    ranking: Sequence[Ranked]
    counters: Counters
    degraded: Degraded
    skipped: Sequence[Skipped]
