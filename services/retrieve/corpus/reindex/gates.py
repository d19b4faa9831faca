"""What the next generation of a corpus must pass before it takes the live one's place."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import ir_measures
from ir_measures import nDCG

from services.retrieve.corpus.embedding import MISMATCH, Librarian
from services.retrieve.corpus.reindex.faults import refused
from services.retrieve.corpus.reindex.protocol import JudgedQuery
from services.retrieve.protocol import RetrieveRequest
from services.retrieve.search import pipeline
from services.retrieve.search.candidates import Arm, Shelves
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.base import EVERYTHING, CorpusStore, Vector
from services.retrieve.stores.state import Revision, rebuilding
from shared.context import Deadline, RequestContext, current, enter
from shared.errors import ApiError
from shared.together import both

CANARIES = 32
_NEAREST = 10
_MEASURE = nDCG @ 10
_CHARACTERS = 1000  # of a canary's query, so that every model reads all of it
_PATIENCE_MS = 60_000.0  # for one question
_LOOK_S = 0.2
_SHOWN = 10  # findings that an error names
# What is read back after the swap, while writes wait: so many documents, and so many canaries. What
# was written since the proof may have pushed some of these out of the ten best, but not half.
_READ_BACK = 8
_STILL_FOUND = 0.5

Shares = Mapping[str, float]


@dataclass(frozen=True)
class Canary:
    """A document, as it was, that must be found by the text of a chunk of its own."""

    document_id: str
    content_hash: str
    query: str


def canaries(store: CorpusStore, chosen: Sequence[Revision]) -> list[Canary]:
    """Of each of the documents the text of a chunk from its middle, as this generation cuts it."""
    found = []
    for one in chosen:
        keys = store.keys_of(one.id)
        records = store.fetch(keys[len(keys) // 2 :][:1])
        found += [
            Canary(one.id, one.content_hash, record.text[:_CHARACTERS])
            for record in records.values()
        ]
    return found


@dataclass(frozen=True)
class Found:
    """The places of the canaries that each arm finds among its ten best, and of how many."""

    places: Mapping[str, Sequence[int]]
    of: int

    @property
    def shares(self) -> Shares:
        """Of each arm the share, 1.0 of none."""
        return {arm: len(one) / self.of if self.of else 1.0 for arm, one in self.places.items()}


@dataclass(frozen=True)
class Asked:
    """Canaries, and the vectors of their queries by the model of one generation; None where embed
    no longer serves that."""

    canaries: Sequence[Canary]
    vectors: Sequence[Vector] | None

    def found(self, store: CorpusStore, places: Sequence[int] | None = None) -> Found:
        """Which of the canaries, or of those at some places, a generation finds.

        What was replaced or deleted since is left out. The arm `dense` is absent without vectors,
        and `bm25` where the words are not to be searched just now.
        """
        chosen = range(len(self.canaries)) if places is None else places
        known = store.known([self.canaries[place].document_id for place in chosen])
        there = []
        for place in chosen:
            one = self.canaries[place]
            if one.document_id in known and known[one.document_id].content_hash == one.content_hash:
                there.append(place)
        found = {}
        if Arm.BM25.value not in rebuilding(store):
            words = [store.bm25(self.canaries[place].query, _NEAREST) for place in there]
            found[Arm.BM25.value] = self._hit(store, there, words)
        if self.vectors is not None:
            near = [store.dense(self.vectors[place], _NEAREST) for place in there]
            found[Arm.DENSE.value] = self._hit(store, there, near)
        return Found(found, len(there))

    def _hit(
        self,
        store: CorpusStore,
        there: Sequence[int],
        lists: Sequence[Sequence[tuple[int, float]]],
    ) -> list[int]:
        hits = []
        for place, ranked in zip(there, lists, strict=True):
            records = store.fetch([key for key, _ in ranked]).values()
            if any(one.document_id == self.canaries[place].document_id for one in records):
                hits.append(place)
        return hits


def sample_of(store: CorpusStore, most: int) -> list[Revision]:
    """At most `most` documents, evenly spread."""
    step = -(-store.info.documents // most) or 1
    return list(islice(store.revisions(), 0, most * step, step))


async def asked(store: CorpusStore, sample: Sequence[Revision], librarian: Librarian) -> Asked:
    """Canaries of a generation, with the vectors of their queries by its model."""
    chosen = await asyncio.to_thread(canaries, store, sample)
    if not chosen:
        return Asked(chosen, [])
    enter(_patient())
    try:
        found = await librarian.query_vectors([one.query for one in chosen], None, store.info)
    except ApiError as error:
        if error.code != MISMATCH:
            raise
        return Asked(chosen, None)
    return Asked(chosen, list(found.dense))


async def ndcg(store: CorpusStore, judged: Sequence[JudgedQuery], staff: Staff) -> float:
    """Mean nDCG@10 of an uncurated search over the judged queries."""
    qrels = {str(place): dict(one.relevant) for place, one in enumerate(judged)}
    shelves = Shelves({store.info.name: store}, EVERYTHING, ExactArm())
    run: dict[str, dict[str, float]] = {}
    for place, one in enumerate(judged):
        request = RetrieveRequest(
            query=one.query, corpora=[store.info.name], top_k=50, curate=False
        )
        enter(_patient())
        found = await pipeline.retrieve(request, shelves, staff, current().deadline)
        if found.degraded:
            raise ApiError(
                503,
                "judgement_incomplete",
                f"a judged query was answered without {', '.join(found.degraded)}: once that "
                "answers again the reindex goes on",
            )
        documents = list(dict.fromkeys(hit.document_id for hit in found.hits))
        # The order is meant, so that scores only have to fall.
        run[str(place)] = {name: 1.0 / rank for rank, name in enumerate(documents, start=1)}
    return float(ir_measures.calc_aggregate([_MEASURE], qrels, run)[_MEASURE])


@dataclass(frozen=True)
class Proof:
    """What the gates saw in both generations. A share that can't be had of the live one, whose
    model is gone, is compared with nothing. sample: documents to be read back after the swap."""

    live: Found
    dark: Found
    live_ndcg: float | None
    dark_ndcg: float | None
    asked: Asked
    sample: Sequence[str]

    def require(self, name: str, canary_margin: float, margin: float) -> None:
        """Raise ApiError 409 `reindex_refused` where the next generation must not take over."""
        shares = self.live.shares
        found = [
            f"the arm {arm} finds {share:.0%} of the canaries, and {shares[arm]:.0%} now"
            for arm, share in self.dark.shares.items()
            if arm in shares and share < shares[arm] - canary_margin
        ]
        now, then = self.live_ndcg, self.dark_ndcg
        if now is not None and then is not None and then < now - margin:
            found.append(f"nDCG@10 is {then:.4f}, and {now:.4f} now")
        if found:
            raise refused(name, "; ".join(found))

    def fault_of(self, served: CorpusStore) -> str | None:
        """What a generation that was swapped in no longer finds of what it found before."""
        if not self.dark.places:
            return None
        by_all = set.intersection(*map(set, self.dark.places.values()))
        again = self.asked.found(served, sorted(by_all)[:_READ_BACK])
        for arm, share in again.shares.items():
            if share < _STILL_FOUND:
                return f"the arm {arm} finds {share:.0%} of the canaries that it found before"
        return None

    def told(self) -> dict[str, object]:
        """The figures, for the result of the job."""
        return {
            "canaries": {"now": dict(self.live.shares), "then": dict(self.dark.shares)},
            "ndcg": {"now": self.live_ndcg, "then": self.dark_ndcg},
        }


async def nothing_asked(live: CorpusStore) -> Proof:
    """Of a generation that served before."""
    sample = await asyncio.to_thread(sample_of, live, _READ_BACK)
    return Proof(Found({}, 0), Found({}, 0), None, None, Asked((), []), [one.id for one in sample])


async def prove(
    live: CorpusStore, dark: CorpusStore, judged: Sequence[JudgedQuery], staff: Staff
) -> Proof:
    """Ask both generations the same. Raises ApiError as a search does."""
    sample = await asyncio.to_thread(sample_of, live, CANARIES)
    by_live, by_dark = await both(
        asked(live, sample, staff.librarian), asked(dark, sample, staff.librarian)
    )
    by_live_found = await asyncio.to_thread(by_live.found, live)
    by_dark_found = await asyncio.to_thread(by_dark.found, dark)
    live_ndcg = dark_ndcg = None
    if judged:
        # In tasks, as each question has a deadline of its own.
        dark_ndcg = await asyncio.create_task(ndcg(dark, judged, staff))
        if by_live.vectors is not None and not rebuilding(live):
            live_ndcg = await asyncio.create_task(ndcg(live, judged, staff))
    back = [one.id for one in sample[:: CANARIES // _READ_BACK]]
    return Proof(by_live_found, by_dark_found, live_ndcg, dark_ndcg, by_dark, back)


async def require_sound(store: CorpusStore) -> None:
    """Raise ApiError 409 `reindex_refused` where anything in a generation disagrees; reads all of
    it. Indexes that are being made anew are waited for."""
    # Of an older refdesk, that of a rollback may have words that no one makes anew.
    while rebuilding(store) and store.info.analyser == ANALYSER:  # noqa: ASYNC110 - stores know no event loop
        await asyncio.sleep(_LOOK_S)
    findings = await asyncio.to_thread(lambda: list(islice(store.verify(), _SHOWN)))
    if findings:
        told = "; ".join(f"{one.where}: {one.what}" for one in findings)
        raise refused(store.info.name, f"what was built is damaged: {told}")


def _patient() -> RequestContext:
    return replace(current(), deadline=Deadline.after_ms(_PATIENCE_MS))
