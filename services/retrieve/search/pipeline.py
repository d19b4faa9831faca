"""The way of a question, stage by stage.

embed the query ∥ BM25 -> dense -> fuse -> window -> curate -> blend -> threshold -> pack

The stages are pure functions in files of their own; this one gives them what they need, in order.
A stage that depends on another service may fail without failing the search: the answer then names
it in `degraded`.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from services.retrieve.corpus.chunk import TokenCounter, title_line
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.protocol import (
    DroppedBody,
    Hit,
    Position,
    RetrieveRequest,
    RetrieveResponse,
    SignalsBody,
)
from services.retrieve.search import candidates, fusion, pack
from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.curate import curated, uncurated
from services.retrieve.search.curator import Curator
from services.retrieve.search.explain import explain, ranks
from services.retrieve.search.pack import Drop, Passage, Reason
from services.retrieve.search.signals import signals
from services.retrieve.stores.base import ChunkRecord, CorpusInfo, CorpusStore, Vector
from shared.context import Deadline
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

STAGES = ("embed", "bm25", "dense", "fuse", "curate", "pack")
Degradable = Literal["dense", "curate"]

# What is kept back of the caller's time for the stages after a call to another service.
_RESERVE_MS = 30.0
# With less than this left, curation is not even begun: it would be thrown away half done.
_LEAST_CURATION_MS = 100.0
# No call takes more of the caller's time than this share, so that a hanging service degrades the
# answer instead of using up the whole deadline, nor more than the bound where there is plenty.
_SHARE = 0.6
_LONGEST_CALL_MS = 15_000.0
# Candidates that are always read, so that signals do not depend on a small top_k.
_LEAST_READ = 10


class Watch:
    """Milliseconds of each stage and in all, by the clock that never goes back."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stages = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside as stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] += (time.perf_counter() - started) * 1000

    def timings(self) -> dict[str, float]:
        """Milliseconds per stage and `total`, to the microsecond."""
        total = (time.perf_counter() - self._started) * 1000
        return {name: round(ms, 3) for name, ms in {**self._stages, "total": total}.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """What the first stage found: the fused list as far as it is read, with texts and scores.

    scores: each arm's exact raw scores, empty where neither curation nor explain asks for them.
    """

    runs: Sequence[Run]
    fused: Sequence[fusion.Fused]
    scores: Mapping[Arm, Mapping[ChunkKey, float]]
    records: Mapping[ChunkKey, ChunkRecord]
    deleted: Sequence[ChunkKey]


@dataclass(slots=True)
class Degraded:
    """The stages that failed, in the order in which they did."""

    stages: list[Degradable] = field(default_factory=list)

    @asynccontextmanager
    async def unless(self, stage: Degradable, deadline: Deadline) -> AsyncIterator[None]:
        """Give what happens inside a share of the time that is left; note `stage` if it fails.

        A refusal that only the caller can mend (its key, a corpus of another model) is no failure
        of the stage and passes through.
        """
        try:
            async with asyncio.timeout(_allowance_ms(deadline) / 1000):
                yield
        except TimeoutError:
            self.note(stage, "timeout", "its share of the request's time ran out")
        except ApiError as error:
            if error.status in (401, 403, 409):
                raise
            self.note(stage, error.code, error.message)

    def note(self, stage: Degradable, code: str, why: str) -> None:
        """Add a stage, and say why in the log."""
        log.warning("search_degraded", stage=stage, code=code, why=why)
        self.stages.append(stage)


async def retrieve(
    request: RetrieveRequest,
    stores: Mapping[str, CorpusStore],
    librarian: Librarian,
    curator: Curator,
    deadline: Deadline,
) -> RetrieveResponse:
    """Answer a request over `stores`, the open corpora that it names.

    Raises ApiError: 503 where no arm could search, 409 where a corpus was made with another model
    than embed serves, and what the stores raise.
    """
    watch = Watch()
    degraded = Degraded()
    words, vectors = await asyncio.gather(
        _search_words(request, stores, watch),
        _query_vectors(request, stores, librarian, deadline, degraded, watch),
    )
    if not vectors and Arm.BM25 not in request.arms:
        raise ApiError(
            503,
            "no_arm",
            "embed does not answer, and the request allows no other arm than dense; "
            'start embed, or search with arms ["bm25", "dense"]',
        )
    found = await asyncio.to_thread(_find, request, stores, words, vectors, watch)
    relevance = await _relevance(
        request, found, stores, librarian, curator, deadline, degraded, watch
    )
    with watch.stage("pack"):
        ranking = [
            Passage(ranked, found.records[ranked.key])
            for ranked in (
                curated(found.fused, relevance, found.scores)
                if relevance
                else uncurated(found.fused)
            )
        ]
        above, below = pack.threshold(ranking[: request.top_k], request.min_score)
        hits, over = pack.pack(above, request.max_tokens)
        felt = signals(request.query, hits, ranking, found.runs, stores)
        body = RetrieveResponse(
            query_id=uuid.uuid4().hex,
            hits=_hits(request, hits, ranking, found),
            signals=SignalsBody(
                top_score=felt.top_score,
                margin=felt.margin,
                agreement=felt.agreement,
                coverage=felt.coverage,
                documents=felt.documents,
            ),
            dropped=[
                DroppedBody(id=drop.id, corpus=drop.corpus, reason=drop.reason.value)
                for drop in [*_deleted(found), *below, *over]
            ],
            degraded=degraded.stages,
            timings_ms={},
        )
    return body.model_copy(update={"timings_ms": watch.timings()})


async def _search_words(
    request: RetrieveRequest, stores: Mapping[str, CorpusStore], watch: Watch
) -> list[Run]:
    if Arm.BM25 not in request.arms:
        return []
    with watch.stage("bm25"):
        return await asyncio.to_thread(
            candidates.search_words, stores, request.query, request.candidates
        )


async def _query_vectors(
    request: RetrieveRequest,
    stores: Mapping[str, CorpusStore],
    librarian: Librarian,
    deadline: Deadline,
    degraded: Degraded,
    watch: Watch,
) -> dict[str, Vector]:
    """The query's vector for each corpus; empty where the dense arm is not asked for or failed."""
    if Arm.DENSE not in request.arms:
        return {}
    # One call per model, however many corpora were made with it.
    infos = {name: store.info for name, store in stores.items()}
    by_stamp = {info.stamp: info for info in infos.values()}
    with watch.stage("embed"):
        async with degraded.unless("dense", deadline):
            vectors = await asyncio.gather(
                *(librarian.query_vector(request.query, info) for info in by_stamp.values())
            )
            of_stamp = dict(zip(by_stamp, vectors, strict=True))
            return {name: of_stamp[info.stamp] for name, info in infos.items()}
    return {}


def _find(
    request: RetrieveRequest,
    stores: Mapping[str, CorpusStore],
    words: Sequence[Run],
    vectors: Mapping[str, Vector],
    watch: Watch,
) -> Found:
    """Everything between the query's vector and the curator, in one worker thread."""
    with watch.stage("dense"):
        runs = [*words, *candidates.search_vectors(stores, vectors, request.candidates)]
    with watch.stage("fuse"):
        weights = {Arm.BM25: request.fusion.weights.bm25, Arm.DENSE: request.fusion.weights.dense}
        settings = fusion.FusionSettings(
            request.fusion.method,
            request.fusion.k,
            {arm: weights[arm] for arm in request.arms},
        )
        window = request.rerank_window if request.curate else 0
        fused = fusion.fuse(runs, settings)[: max(request.top_k, window, _LEAST_READ)]
        keys = [candidate.key for candidate in fused]
        scores: dict[Arm, dict[ChunkKey, float]] = {}
        if window or request.explain:
            scores = candidates.exact_scores(stores, runs, keys, request.query, vectors)
        records = candidates.fetch(stores, keys)
    alive = {
        key for key in keys if key in records and all(key in column for column in scores.values())
    }
    return Found(
        runs=runs,
        fused=[candidate for candidate in fused if candidate.key in alive],
        scores=scores,
        records=records,
        deleted=[key for key in keys if key not in alive],
    )


async def _relevance(
    request: RetrieveRequest,
    found: Found,
    stores: Mapping[str, CorpusStore],
    librarian: Librarian,
    curator: Curator,
    deadline: Deadline,
    degraded: Degraded,
    watch: Watch,
) -> dict[ChunkKey, float]:
    """The curator's score of each chunk of the window; empty where it was not asked or failed."""
    window = [candidate.key for candidate in found.fused[: request.rerank_window]]
    if not request.curate or not window:
        return {}
    if _allowance_ms(deadline) < _LEAST_CURATION_MS:
        degraded.note("curate", "no_time", "too little of the request's time was left")
        return {}
    with watch.stage("curate"):
        async with degraded.unless("curate", deadline):
            infos = {run.corpus: stores[run.corpus].info for run in found.runs}
            counters = {
                run.corpus: await librarian.counter(infos[run.corpus])
                for run in found.runs
                if run.arm is Arm.DENSE
            }
            texts = [
                _as_embedded(found.records[key], infos[key.corpus], counters.get(key.corpus))
                for key in window
            ]
            scores = await curator.relevance(request.query, texts)
            return dict(zip(window, scores, strict=True))
    return {}


def _as_embedded(record: ChunkRecord, corpus: CorpusInfo, counter: TokenCounter | None) -> str:
    """A chunk as the embedder saw it: the title line of its document, then its text.

    Without the counter of the corpus's model, as where words alone are searched, the title is
    whole: there is no vector then that the curator should agree with.
    """
    if counter is not None:
        return title_line(record.title, counter, corpus.chunk_tokens) + record.text
    return f"{record.title}\n{record.text}" if record.title else record.text


def _allowance_ms(deadline: Deadline) -> float:
    return max(0.0, min(_LONGEST_CALL_MS, (deadline.remaining_ms() - _RESERVE_MS) * _SHARE))


def _deleted(found: Found) -> list[Drop]:
    return [Drop(f"key:{key.key}", key.corpus, Reason.DELETED) for key in found.deleted]


def _hits(
    request: RetrieveRequest, hits: Sequence[Passage], ranking: Sequence[Passage], found: Found
) -> list[Hit]:
    places: dict[ChunkKey, int] = {}
    if request.explain:
        places = {passage.ranked.key: rank for rank, passage in enumerate(ranking, start=1)}
        arm_ranks = ranks(found.runs)
    return [
        Hit(
            id=hit.record.id,
            document_id=hit.record.document_id,
            corpus=hit.ranked.key.corpus,
            title=hit.record.title,
            url=hit.record.url,
            text=hit.record.text,
            score=hit.ranked.score,
            rank=rank,
            metadata=dict(hit.record.metadata),
            position=Position(
                chunk=hit.record.number,
                chunks=hit.record.count,
                start=hit.record.start,
                end=hit.record.end,
            ),
            tokens=hit.record.tokens,
            explain=explain(hit.ranked, places[hit.ranked.key], arm_ranks, found.scores)
            if request.explain
            else None,
        )
        for rank, hit in enumerate(hits, start=1)
    ]
