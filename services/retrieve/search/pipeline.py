"""The way of a question, stage by stage.

understand -> embed the query ∥ search words -> search its vectors -> fuse -> recency -> window
-> curate -> blend -> threshold -> collapse duplicates -> diversify -> widen -> pack

The stages are pure functions in files of their own; this one gives them what they need, in order,
and answer.py does the last four. A stage that depends on another service may fail without failing
the search: the answer then names it in `degraded`. What is left out on purpose is in `skipped`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from services.retrieve.corpus.chunk import TokenCounter, embedder_input
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.protocol import RetrieveRequest, RetrieveResponse, Skipped
from services.retrieve.search import fusion, recency
from services.retrieve.search.answer import answer
from services.retrieve.search.arms import chosen, no_arm
from services.retrieve.search.assistant import Assistant
from services.retrieve.search.candidates import (
    EMBEDDED,
    Arm,
    ChunkKey,
    Run,
    Shelves,
    Vectors,
)
from services.retrieve.search.curate import curated, uncurated
from services.retrieve.search.curator import Curator
from services.retrieve.search.found import Counters, Found, Search
from services.retrieve.search.gate import certain
from services.retrieve.search.question import Question, understand
from services.retrieve.search.threads import compute
from services.retrieve.search.watch import Degradable, Degraded, Watch, allowance_ms
from services.retrieve.stores.base import ChunkRecord, Described
from services.retrieve.stores.corpus import CorpusInfo, RecencyDefault
from services.retrieve.stores.state import INDEX_REBUILDING
from shared.context import Deadline
from shared.errors import ApiError
from shared.together import both, together

# The stages that fail with embed.
_OF_EMBED: Sequence[Degradable] = ("dense", "sparse")
# With less than this left, curation is not even begun: it would be thrown away half done.
_LEAST_CURATION_MS = 100.0
# Candidates that are always read, so that signals do not depend on a small top_k.
_LEAST_READ = 10
# Hits that are asked for, times this, are read: some may be near-duplicates of others.
_SPARE = 2


@dataclass(frozen=True)
class Staff:
    """Whom a search asks. assistant: None where there is no tier utility."""

    librarian: Librarian
    curator: Curator
    tokenizers: Tokenizers
    assistant: Assistant | None = None


@dataclass(frozen=True)
class _Work:
    """A search under way."""

    request: RetrieveRequest
    arms: Sequence[Arm]
    question: Question
    shelves: Shelves
    staff: Staff
    deadline: Deadline
    degraded: Degraded
    skipped: list[Skipped]
    watch: Watch

    @property
    def infos(self) -> dict[str, CorpusInfo]:
        return {name: store.info for name, store in self.shelves.stores.items()}

    @property
    def reads_all(self) -> bool:
        """Whether every chunk of a corpus may be read, which can take many seconds."""
        return Arm.BM25_EXACT in self.arms

    @property
    def at_once(self) -> frozenset[str]:
        """The corpora that are searched by words and vectors in one round trip, once embed has
        answered: two round trips, one of them meanwhile, would take longer."""
        both = Arm.BM25 in self.arms and not EMBEDDED.isdisjoint(self.arms)
        return self.shelves.batched if both else frozenset()

    def skip(self, stage: str, reason: str) -> None:
        self.skipped.append(Skipped(stage=stage, reason=reason))


async def retrieve(
    request: RetrieveRequest, shelves: Shelves, staff: Staff, deadline: Deadline
) -> RetrieveResponse:
    """Answer a request. Raises ApiError as `search`."""
    watch = Watch()
    done = await search(request, shelves, staff, deadline, watch)

    def packed() -> RetrieveResponse:
        with watch.stage("pack"):
            return answer(done, shelves)

    # To widen hits, or to count the tokens of another model, may take seconds.
    body = await compute(packed, long=bool(request.neighbors or request.tokenizer))
    return body.model_copy(update={"timings_ms": watch.timings()})


async def search(
    request: RetrieveRequest, shelves: Shelves, staff: Staff, deadline: Deadline, watch: Watch
) -> Search:
    """Everything up to the ranking.

    Raises ApiError: 503 where no arm could search, 409 where a corpus was made with another model
    than embed serves, 422 where a corpus has not what the only arm searches, 404 for a tokenizer
    that is not there, and what the stores raise.
    """
    infos = {name: store.info for name, store in shelves.stores.items()}
    arms, left_out = chosen(request.arms, infos)
    budget = None
    if request.tokenizer is not None:
        counter = await asyncio.to_thread(staff.tokenizers.counter, request.tokenizer)
        budget = counter.count
    with watch.stage("understand"):
        question = await understand(request, staff.assistant)
    skipped = [*left_out, *question.skipped]
    work = _Work(request, arms, question, shelves, staff, deadline, Degraded(), skipped, watch)
    words, vectors = await both(_search_words(work), _query_vectors(work))
    if all(arm in work.degraded.stages for arm in arms):
        raise no_arm(arms, work.degraded.stages, work.infos)
    dates = _dates(work)
    found = await compute(
        partial(_find, work, words, vectors or Vectors(), dates), long=work.reads_all
    )
    relevance = await _relevance(work, found)
    spaces = {name: info.stamp for name, info in infos.items()}
    bonus = recency.bonus(found.ages_days, dates) if dates else None
    ranking = (
        curated(found.read, relevance, found.scores, bonus, spaces)
        if relevance
        else uncurated(found.read)
    )
    own = await _own_counters(work)
    return Search(
        request=request,
        question=question,
        found=found,
        relevance=relevance,
        ranking=ranking,
        counters=Counters(budget, own),
        degraded=work.degraded,
        skipped=work.skipped,
    )


async def _search_words(work: _Work) -> list[Run]:
    arms = [arm for arm in work.arms if arm not in EMBEDDED]
    if not arms:
        return []

    def lists() -> list[Run]:
        queries, limit = work.question.queries, work.request.candidates
        runs: list[Run] = []
        with work.watch.stage("bm25"):
            for arm in arms:
                try:
                    later = work.at_once if arm is Arm.BM25 else ()
                    runs += work.shelves.words(arm, queries, limit, later)
                except ApiError as error:
                    if error.code != INDEX_REBUILDING:
                        raise
                    # Lists of some of the corpora alone would lift these above the others.
                    work.degraded.note("bm25", error.code, error.message)
        return runs

    return await compute(lists, long=work.reads_all)


async def _query_vectors(work: _Work) -> Vectors | None:
    """The queries' vectors of the arms that want them; None where no arm does or embed failed."""
    stages = [stage for stage in _OF_EMBED if stage in work.arms]
    if not stages:
        return None
    # One call per model, revision and dimension, however many corpora were made so, for any arms.
    by_stamp = {info.stamp: info for info in work.infos.values()}
    with work.watch.stage("embed"):
        async with work.degraded.unless(stages, work.deadline):
            answers = await together(
                work.staff.librarian.query_vectors(
                    work.question.queries,
                    work.question.passage,
                    info,
                    sparse=Arm.SPARSE in work.arms,
                )
                for info in by_stamp.values()
            )
            of_stamp = dict(zip(by_stamp, answers, strict=True))
            made = {name: of_stamp[info.stamp] for name, info in work.infos.items()}
            return Vectors(
                {name: list(one.dense) for name, one in made.items()} if "dense" in stages else {},
                {name: one.sparse for name, one in made.items() if one.sparse is not None},
            )
    return None


def _dating(work: _Work) -> dict[str, RecencyDefault]:
    """How each corpus's documents are dated: as the request says, or else the corpus itself; no
    corpus is in it of which nobody says so."""
    if "recency" not in work.request.model_fields_set:
        return {name: info.recency for name, info in work.infos.items() if info.recency}
    said = work.request.recency
    if said is None:
        return {}
    return dict.fromkeys(work.infos, RecencyDefault(said.half_life_days, said.weight, said.field))


def _dates(work: _Work) -> dict[str, recency.RecencySettings]:
    """How much dates count, of each corpus where they do."""
    said = work.request.recency
    languages = {info.language for info in work.infos.values()}
    query = work.question.query
    only_if_asked = said is not None and said.when == "asked"
    if only_if_asked and not any(recency.asks_for_recent(query, one) for one in languages):
        work.skip("recency", "the question asks for nothing recent")
        return {}
    # There it is against all arms together.
    arms = sum(_fusion(work).weights.values())
    return {
        name: recency.RecencySettings(wanted.half_life_days, wanted.weight / arms)
        for name, wanted in _dating(work).items()
    }


def _find(
    work: _Work,
    words: Sequence[Run],
    vectors: Vectors,
    dates: recency.OfCorpora,
) -> Found:
    """Everything between the query's vector and the curator, in one worker thread."""
    request, shelves, dating = work.request, work.shelves, _dating(work)
    runs = list(words)
    at_once = work.at_once
    if at_once:
        queries = () if Arm.BM25 in work.degraded.stages else work.question.queries
        with work.watch.stage("dense" if vectors.dense else "bm25"):
            runs += shelves.at_once(at_once, queries, vectors, request.candidates)
    elsewhere = vectors.but(at_once)
    if elsewhere.dense:
        with work.watch.stage("dense"):
            runs += shelves.dense(elsewhere, request.candidates)
    if elsewhere.sparse:
        with work.watch.stage("sparse"):
            runs += shelves.sparse(elsewhere, request.candidates)
    with work.watch.stage("fuse"):
        fused = fusion.fuse(runs, _fusion(work))
        window = request.rerank_window if _may_curate(work) else 0
        most = max(_SPARE * request.top_k, window, _LEAST_READ)
        if dates:  # what is lifted into the window may come from far below
            near = fused[: recency.within_lift(fused, most, dates)]
            ages = _ages(dating, shelves.described([one.key for one in near]))
            fused = recency.lift(fused, ages, dates)
        read = fused[:most]
        keys = [candidate.key for candidate in read]
        scores: dict[Arm, dict[ChunkKey, float]] = {}
        if window or request.explain:
            scores = shelves.scores(runs, keys, work.question.query, vectors)
        records = shelves.read(keys)
    return Found(
        runs=runs,
        vectors=vectors,
        fused=fused,
        read=[candidate for candidate in read if candidate.key in records],
        scores=scores,
        records=records,
        ages_days=_ages(dating, records),
        half_life_days={name: wanted.half_life_days for name, wanted in dating.items()},
        deleted=[key for key in keys if key not in records],
    )


def _fusion(work: _Work) -> fusion.FusionSettings:
    wanted = work.request.fusion
    of_arm = {Arm.DENSE: wanted.weights.dense, Arm.SPARSE: wanted.weights.sparse}
    weights = {arm: of_arm.get(arm, wanted.weights.bm25) for arm in work.arms}
    spaces = {name: info.stamp for name, info in work.infos.items()}
    return fusion.FusionSettings(wanted.method, wanted.k, weights, spaces)


def _ages(
    dating: Mapping[str, RecencyDefault], records: Mapping[ChunkKey, ChunkRecord | Described]
) -> dict[ChunkKey, float | None]:
    now = datetime.now(UTC)
    fields = {name: wanted.field for name, wanted in dating.items()}
    return {
        key: recency.age_days(record.metadata, fields.get(key.corpus), record.updated_at, now)
        for key, record in records.items()
    }


async def _relevance(work: _Work, found: Found) -> dict[ChunkKey, float]:
    """The curator's score of each chunk of the window; empty where it was not asked or failed."""
    window = found.read[: work.request.rerank_window]
    if not window or not _wants_curation(work, window, found):
        return {}
    if allowance_ms(work.deadline) < _LEAST_CURATION_MS:
        work.degraded.note("curate", "no_time", "too little of the request's time was left")
        return {}
    with work.watch.stage("curate"):
        async with work.degraded.unless(["curate"], work.deadline):
            counters = {
                name: await work.staff.librarian.counter(work.infos[name])
                for name in found.vectors.dense or found.vectors.sparse
            }
            texts = [
                _as_embedded(
                    found.records[one.key], work.infos[one.key.corpus], counters.get(one.key.corpus)
                )
                for one in window
            ]
            scores = await work.staff.curator.relevance(work.question.query, texts)
            return dict(zip((one.key for one in window), scores, strict=True))
    return {}


def _may_curate(work: _Work) -> bool:
    """Whether any chunk may be curated, as far as is known before one is found."""
    if work.request.curate is None:
        return any(info.curate for info in work.infos.values())
    return work.request.curate is not False


def _wants_curation(work: _Work, window: Sequence[fusion.Fused], found: Found) -> bool:
    wanted, reason = work.request.curate, None
    if wanted is False:
        return False
    if wanted is None and not any(work.infos[one.key.corpus].curate for one in window):
        reason = "the corpora say so in their settings"
    elif wanted == "auto":
        reason = certain(window, found.scores, found.records)
    if reason is not None:
        work.skip("curate", reason)
    return reason is None


def _as_embedded(record: ChunkRecord, corpus: CorpusInfo, counter: TokenCounter | None) -> str:
    """A chunk as the embedder saw it: the title line of its document, then its text.

    Without the counter of the corpus's model, as where words alone are searched, the title is
    whole: there is no vector then that the curator should agree with.
    """
    if counter is not None:
        return embedder_input(record.title, record, counter, corpus.chunk_tokens)
    return f"{record.title}\n{record.text}" if record.title else record.text


async def _own_counters(work: _Work) -> dict[str, Callable[[str], int]]:
    """How the corpora's models count, where hits are to be widened."""
    if not work.request.neighbors:
        return {}
    try:
        async with asyncio.timeout(allowance_ms(work.deadline) / 1000):
            return {
                name: (await work.staff.librarian.counter(info)).count
                for name, info in work.infos.items()
            }
    except TimeoutError:
        work.skip("neighbors", "what they cost can't be counted: embed does not answer in time")
    except ApiError as error:
        work.skip("neighbors", f"what they cost can't be counted: {error.message}")
    return {}
