"""The answer of a search that is done: what of the ranking is shown, and why it is where it is.

threshold -> collapse duplicates -> diversify -> widen -> pack
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from services.retrieve.protocol import (
    DroppedBody,
    Hit,
    Position,
    RetrieveResponse,
    Searched,
    SignalsBody,
    Skipped,
    Twin,
)
from services.retrieve.search import pack
from services.retrieve.search.candidates import ChunkKey, Shelves
from services.retrieve.search.diversity import mmr
from services.retrieve.search.duplicates import collapse
from services.retrieve.search.explain import explain, ranks
from services.retrieve.search.found import Found, Search
from services.retrieve.search.neighbours import MOST_CHARACTERS, affordable, widen
from services.retrieve.search.pack import Drop, Passage, Reason
from services.retrieve.search.signals import FRESH_DAYS, signals

# Passages that hits are chosen from, for each that is asked for: some may be near-duplicates of
# others, and more are wanted where hits shall differ.
_CHOICE, _DIVERSE_CHOICE = 2, 6


@dataclass(frozen=True)
class Selection:
    """What is shown of a ranking, and what became of the rest.

    ranking: all of it, with texts. hits: what is shown, best first. twins: by the key of a passage
    those that say the same. merged: by the key of a widened hit the hits that it is made of.
    skipped: what was left out here on purpose.
    """

    ranking: Sequence[Passage]
    hits: Sequence[Passage]
    twins: Mapping[ChunkKey, Sequence[Passage]]
    merged: Mapping[ChunkKey, Sequence[Passage]]
    dropped: Sequence[Drop]
    skipped: Sequence[Skipped]


def select(done: Search, shelves: Shelves) -> Selection:
    """Choose the hits of a search."""
    request, found = done.request, done.found
    ranking = [Passage(ranked, found.records[ranked.key]) for ranked in done.ranking]
    above, _ = pack.threshold(ranking, request.min_score)
    _, below = pack.threshold(ranking[: request.top_k], request.min_score)
    choice = _DIVERSE_CHOICE if request.diversity else _CHOICE
    groups = collapse(above[: choice * request.top_k])
    twins = {leader.ranked.key: others for leader, others in groups if others}
    leaders = [leader for leader, _ in groups]
    if request.diversity:
        vectors = shelves.chunk_vectors([one.ranked.key for one in leaders])
        leaders = mmr(leaders, vectors, request.diversity, request.top_k)
    hits = leaders[: request.top_k]
    merged: dict[ChunkKey, Sequence[Passage]] = {}
    skipped = []
    if done.counters.own:
        reach = None if request.neighbors == "document" else request.neighbors
        keys = [one.ranked.key for one in hits]
        wide = affordable(keys, shelves.extents(keys, reach))
        if len(wide) < len(keys):
            skipped.append(_too_wide(len(keys) - len(wide)))
        around = shelves.neighbours(wide, reach)
        widened = widen(hits, around, lambda corpus, text: done.counters.own[corpus](text))
        merged = {one.passage.ranked.key: one.hits for one in widened}
        hits = [one.passage for one in widened]
    hits, over = pack.pack(hits, request.max_tokens, done.counters.budget, merged)
    return Selection(ranking, hits, twins, merged, [*_deleted(found), *below, *over], skipped)


def answer(done: Search, shelves: Shelves) -> RetrieveResponse:
    """The whole response but for its timings."""
    found = done.found
    selection = select(done, shelves)
    best = selection.hits[0].ranked.key.corpus if selection.hits else ""
    felt = signals(
        done.question.query,
        selection.hits,
        selection.ranking,
        found.runs,
        shelves.stores,
        found.ages_days,
        found.half_life_days.get(best, FRESH_DAYS),
    )
    return RetrieveResponse(
        query_id=uuid.uuid4().hex,
        hits=_hits(done, selection, shelves),
        signals=SignalsBody(
            top_score=felt.top_score,
            margin=felt.margin,
            agreement=felt.agreement,
            coverage=felt.coverage,
            documents=felt.documents,
            freshness=felt.freshness,
        ),
        dropped=[
            DroppedBody(id=drop.id, corpus=drop.corpus, reason=drop.reason.value)
            for drop in selection.dropped
        ],
        searched=Searched(
            query=done.question.query,
            how=done.question.how,
            variants=list(done.question.variants),
        ),
        skipped=[*done.skipped, *selection.skipped],
        degraded=done.degraded.stages,
        timings_ms={},
    )


def _too_wide(hits: int) -> Skipped:
    return Skipped(
        stage="neighbors",
        reason=f"{hits} of the hits are as narrow as they were found: an answer is widened by at "
        f"most {MOST_CHARACTERS:,} characters",
    )


def _deleted(found: Found) -> list[Drop]:
    return [Drop(f"key:{key.key}", key.corpus, Reason.DELETED) for key in found.deleted]


def _hits(done: Search, selection: Selection, shelves: Shelves) -> list[Hit]:
    places: dict[ChunkKey, int] = {}
    if done.request.explain:
        places = {one.ranked.key: rank for rank, one in enumerate(selection.ranking, start=1)}
        arm_ranks = ranks(done.found.runs)
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
                **asdict(hit.record.place),
            ),
            tokens=hit.record.tokens,
            duplicates=tuple(
                Twin(
                    id=twin.record.id,
                    document_id=twin.record.document_id,
                    corpus=twin.ranked.key.corpus,
                )
                for twin in selection.twins.get(hit.ranked.key, ())
            ),
            explain=explain(
                hit.ranked,
                places[hit.ranked.key],
                arm_ranks,
                done.found,
                shelves.stores[hit.ranked.key.corpus].dense_method,
            )
            if done.request.explain
            else None,
        )
        for rank, hit in enumerate(selection.hits, start=1)
    ]
