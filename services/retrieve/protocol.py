"""What goes over the wire of a search: every request and response body, with its limits."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from services.retrieve.corpus.protocol import Body, distinct
from services.retrieve.corpus.settings_protocol import RecencyBody
from services.retrieve.search.candidates import Arm
from services.retrieve.search.conversation import said
from services.retrieve.search.fusion import FusionMethod
from services.retrieve.search.watch import Degradable
from services.retrieve.stores.base import JsonScalar

_MAX_MESSAGE = 100_000
Weight = Annotated[float, Field(ge=1e-6, le=1000)]  # a smaller one makes every score 0


class FusionWeights(Body):
    """Each arm's weight in the fusion; an arm is left out by `arms`, not by a weight of 0."""

    bm25: Weight = 1.0
    dense: Weight = 1.0
    sparse: Weight = 1.0


class Fusion(Body):
    """How the arms' lists become one. k: the constant of reciprocal rank fusion."""

    method: FusionMethod = FusionMethod.RRF
    k: Annotated[float, Field(ge=1, le=10_000)] = 60
    weights: FusionWeights = FusionWeights()


class Recency(RecencyBody):
    """How much younger documents are preferred in a search.

    when: for every query, or only for one that asks for something recent (`latest`, `today`).
    """

    when: Literal["always", "asked"] = "always"


class Expansion(Body):
    """Further searches, made by the tier utility where one is configured.

    queries: so many other wordings of the query. hyde: a made-up passage that would answer it,
    whose vector is searched for, too.
    """

    queries: Annotated[int, Field(ge=0, le=4)] = 0
    hyde: bool = False


class TextPart(Body):
    """A piece of a message's text, in OpenAI's form."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=_MAX_MESSAGE)]


class Message(Body):
    """A turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: (
        Annotated[str, Field(max_length=_MAX_MESSAGE)]
        | Annotated[list[TextPart], Field(max_length=64)]
    )


class RetrieveRequest(Body):
    """A question to the desk.

    query: the question; or messages: a conversation that ends with it. arms: which searches are
    made; null is bm25 and dense, and sparse where every one of the corpora has sparse vectors.
    candidates: length of each arm's list per corpus. rerank_window: how many fused candidates the
    curator reads. recency: null is none, left out is as the corpora say. filter: which documents
    count, in OpenAI's grammar. curate: "auto" leaves it out
    where the arms are certain, null is as the corpora say. min_score: least shown score of a hit.
    max_tokens: budget for all passages together, in tokens of tokenizer (a model in the model
    store), null: of the corpora's own models; no budget if it is null. neighbors: widen each hit by
    so many chunks before and after it, or to its whole document. diversity: 0 is none, 1 is nothing
    else. expand: search for other wordings, too. explain: say of each hit where every part of its
    place comes from.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=200)] | None = None
    query: Annotated[str, Field(max_length=8192, validate_default=True)] = ""
    corpora: Annotated[
        list[Annotated[str, Field(max_length=256)]],
        Field(min_length=1, max_length=16),
        AfterValidator(distinct),
    ]
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    candidates: Annotated[int, Field(ge=1, le=1000)] = 100
    rerank_window: Annotated[int, Field(ge=0, le=200)] = 50
    arms: Annotated[tuple[Arm, ...], Field(min_length=1), AfterValidator(distinct)] | None = None
    fusion: Fusion = Fusion()
    recency: Recency | None = None
    filter: dict[str, Any] | None = None
    curate: bool | Literal["auto"] | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokenizer: Annotated[str, Field(max_length=256)] | None = None
    neighbors: Annotated[int, Field(ge=0, le=20)] | Literal["document"] = 0
    diversity: Annotated[float, Field(ge=0, le=1)] = 0
    expand: Expansion = Expansion()
    explain: bool = False

    @field_validator("messages")
    @classmethod
    def _ends_with_the_question(cls, value: list[Message] | None) -> list[Message] | None:
        if value is not None and value[-1].role != "user":
            raise ValueError("the last one must be the user's question")
        if value is not None and not said(value[-1].content).strip():
            raise ValueError("the last one is blank: there is no question in it")
        return value

    @field_validator("query")
    @classmethod
    def _asked_once(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("messages") is not None:
            if value:
                raise ValueError("is there beside messages: send one of them")
        elif "messages" in info.data:  # they were not refused themselves
            if not value:
                raise ValueError("is missing: send the question, or a conversation as `messages`")
            if not value.strip():
                raise ValueError("is blank: there is nothing in it to work with")
        return value


class Position(Body):
    """Where a passage is in its document: chunk `chunk` (from 0) of `chunks`.

    start, end: character offsets in the document's parsed text; bytes: the same in its UTF-8.
    headings: those that it stands under, outermost first. pages: the first and the last it touches,
    from 1. code: the language, where all of it is code. rows: the first and the last row of the
    table that it is a part of, from 0. What a document does not have is null.
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


class ArmExplanation(Body):
    """One arm's view of a hit: rank in the arm's list (null if not in it) and raw score.

    score: BM25, cosine or dot product; null if it was not needed. share: what the arm gave to the
    fused score.
    """

    rank: int | None
    score: float | None
    share: float


class CurationExplanation(Body):
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


class RecencyExplanation(Body):
    """What its date did for a hit. age_days: null where it has no date. in_fusion: its part of the
    fused score. in_blend: what was added to the blend, null where no curator judged."""

    age_days: float | None
    in_fusion: float
    in_blend: float | None


class Explanation(Body):
    """Why a hit is where it is.

    fused_score: the sum of the arms' shares and of its date's, fused_rank its place. dense: how the
    vectors of its corpus were searched.
    """

    arms: dict[Arm, ArmExplanation]
    fused_score: float
    fused_rank: int
    recency: RecencyExplanation | None
    curation: CurationExplanation | None
    dense: str | None


class Twin(Body):
    """A passage that says the same as a hit, in another place."""

    id: str
    document_id: str
    corpus: str


class Hit(Body):
    """A passage that answers. score: 0..1, never rising along the hits unless diversity moved them;
    see docs on scores.

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
    duplicates: tuple[Twin, ...] = ()
    explain: Explanation | None = None


class SignalsBody(Body):
    """How well the search itself thinks it did; see docs on signals. All but documents are 0..1.

    freshness: of the best hit; null where nothing says how old it is.
    """

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int
    freshness: float | None


class DroppedBody(Body):
    """What was left out of the hits, and why.

    A chunk deleted while the search ran has no id any more; it goes by its key in the store.
    """

    id: str
    corpus: str
    reason: Literal["below_min_score", "over_budget", "deleted"]


class Skipped(Body):
    """A stage that was left out on purpose, or a wish that came to nothing, and why."""

    stage: str
    reason: str


class Searched(Body):
    """What was searched for. query: as the arms and the curator got it. how: what was done to the
    question for it. variants: other wordings that were searched for, too."""

    query: str
    how: str
    variants: list[str]


class RetrieveResponse(Body):
    """The passages that answer, best first, with how they were found.

    degraded: the stages that failed or were left out (`bm25`, `dense`, `sparse`, `curate`); empty
    when all is well.
    timings_ms: milliseconds per stage, 0 where a stage did not run; bm25 and embed overlap.
    """

    query_id: str
    hits: list[Hit]
    signals: SignalsBody
    dropped: list[DroppedBody]
    searched: Searched
    skipped: list[Skipped]
    degraded: list[Degradable]
    timings_ms: dict[str, float]


class WhyNotRequest(RetrieveRequest):
    """A search, and a document whose place in it is to be explained. corpora: where it may be."""

    document_id: Annotated[str, Field(min_length=1, max_length=512)]


WhyNotReason = Literal[
    "returned",
    "merged",
    "over_budget",
    "not_diverse",
    "duplicate",
    "below_min_score",
    "less_relevant",
    "not_read",
    "not_a_candidate",
    "filtered",
]


class ArmVerdict(Body):
    """One arm's view of a chunk. rank: in its list, null where it is not in it. score: raw. last:
    that of the last of its list, which the chunk had to reach; null where the list is not full."""

    rank: int | None
    score: float | None
    last: float | None


class ChunkVerdict(Body):
    """How far a chunk came. fused_rank: null where it is no candidate. relevance: the curator's,
    null where it did not read it. rank: in the final order. message: the reason in words."""

    id: str
    corpus: str
    arms: dict[Arm, ArmVerdict]
    fused_rank: int | None
    relevance: float | None
    rank: int | None
    score: float | None
    reason: WhyNotReason
    message: str


class WhyNotResponse(Body):
    """Why a document is not among the hits, or that it is.

    reason, message: those of the chunk that came farthest. chunks: all of the document's, those
    that came farthest first.
    """

    document_id: str
    reason: WhyNotReason
    message: str
    chunks: list[ChunkVerdict]
    searched: Searched
    degraded: list[Degradable]
