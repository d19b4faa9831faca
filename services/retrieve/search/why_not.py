"""Why not: how far a document came in a search, and where it was left behind."""

from collections.abc import Mapping, Sequence
from typing import get_args

from services.retrieve.protocol import (
    ArmVerdict,
    ChunkVerdict,
    Searched,
    WhyNotReason,
    WhyNotResponse,
)
from services.retrieve.search.answer import Selection, select
from services.retrieve.search.candidates import Arm, ChunkKey, Shelves
from services.retrieve.search.explain import ranks
from services.retrieve.search.found import Search
from services.retrieve.search.pack import Passage, Reason
from services.retrieve.stores.base import Scope

# In the order of how far a chunk has come, the farthest first.
_ORDER: Sequence[WhyNotReason] = get_args(WhyNotReason)


def why_not(done: Search, shelves: Shelves, document_id: str) -> WhyNotResponse | None:
    """Follow every chunk of a document, which the caller may read in at least one of the corpora,
    through a search that is done. None where it has gone meanwhile."""
    found = done.found
    permitted = Scope(readers=shelves.scope.readers)
    keys = [
        ChunkKey(name, key)
        for name, store in shelves.stores.items()
        for key in sorted(store.in_scope(store.keys_of(document_id), permitted))
    ]
    seen = {
        ChunkKey(name, key)
        for name, store in shelves.stores.items()
        for key in store.in_scope([one.key for one in keys if one.corpus == name], shelves.scope)
    }
    scores = shelves.scores(found.runs, keys, done.question.query, found.vectors)
    records = shelves.fetch(keys)
    selection = select(done, shelves)
    trace = _Trace(done, selection, scores)
    chunks = [
        trace.verdict(key, records[key].id, in_scope=key in seen) for key in keys if key in records
    ]
    if not chunks:
        return None
    chunks.sort(key=lambda one: (_ORDER.index(one.reason), one.rank or one.fused_rank or 0))
    return WhyNotResponse(
        document_id=document_id,
        reason=chunks[0].reason,
        message=chunks[0].message,
        chunks=chunks,
        searched=Searched(
            query=done.question.query,
            how=done.question.how,
            variants=list(done.question.variants),
        ),
        degraded=done.degraded.stages,
    )


class _Trace:
    """A search that is done, looked up by chunk."""

    def __init__(
        self,
        done: Search,
        selection: Selection,
        scores: Mapping[Arm, Mapping[ChunkKey, float]],
    ) -> None:
        self._done = done
        self._selection = selection
        self._scores = scores
        self._arm_ranks = ranks(done.found.runs)
        self._fused = {one.key: rank for rank, one in enumerate(done.found.fused, start=1)}
        self._ranking = {
            one.ranked.key: (rank, one) for rank, one in enumerate(selection.ranking, start=1)
        }
        self._hits = {one.ranked.key for one in selection.hits}
        self._twins = {
            twin.ranked.key: leader for leader, twins in selection.twins.items() for twin in twins
        }
        self._merged = {
            part.ranked.key: whole for whole, parts in selection.merged.items() for part in parts
        }
        self._over = {
            (drop.corpus, drop.id)
            for drop in selection.dropped
            if drop.reason is Reason.OVER_BUDGET
        }

    def verdict(self, key: ChunkKey, chunk_id: str, *, in_scope: bool) -> ChunkVerdict:
        """What became of a chunk."""
        rank, passage = self._ranking.get(key, (None, None))
        reason, message = (
            self._reason(key, chunk_id, rank, passage)
            if in_scope
            else ("filtered", "the filter leaves its document out")
        )
        return ChunkVerdict(
            id=chunk_id,
            corpus=key.corpus,
            arms={arm: self._arm(arm, key) for arm in self._arm_ranks},
            fused_rank=self._fused.get(key),
            relevance=self._done.relevance.get(key),
            rank=rank,
            score=passage.ranked.score if passage else None,
            reason=reason,
            message=message,
        )

    def _arm(self, arm: Arm, key: ChunkKey) -> ArmVerdict:
        full = self._done.request.candidates
        lasts = [
            run.ranked[-1][1]
            for run in self._done.found.runs
            if (run.arm, run.corpus, run.query) == (arm, key.corpus, 0) and len(run.ranked) == full
        ]
        return ArmVerdict(
            rank=self._arm_ranks[arm].get(key),
            score=self._scores.get(arm, {}).get(key),
            last=lasts[0] if lasts else None,
        )

    def _reason(
        self, key: ChunkKey, chunk_id: str, rank: int | None, passage: Passage | None
    ) -> tuple[WhyNotReason, str]:
        request = self._done.request
        if key in self._hits:
            return "returned", f"it is among the hits, at place {rank} of the ranking"
        if key in self._merged and self._merged[key] in self._hits:
            return "merged", "it is part of a widened hit"
        if (key.corpus, chunk_id) in self._over:
            return "over_budget", f"it does not fit into max_tokens ({request.max_tokens}) any more"
        if key in self._twins:
            return "duplicate", "it says the same as a passage above it, which lists it"
        if passage is None or rank is None:
            return self._unranked(key)
        if request.min_score is not None and passage.ranked.score < request.min_score:
            return (
                "below_min_score",
                f"its score {passage.ranked.score} is below min_score ({request.min_score})",
            )
        if request.diversity and rank <= request.top_k:
            return "not_diverse", f"at place {rank} it was too like hits above it (diversity)"
        return "less_relevant", f"it is at place {rank}, and top_k is {request.top_k}"

    def _unranked(self, key: ChunkKey) -> tuple[WhyNotReason, str]:
        request = self._done.request
        if key in self._fused:
            read = len(self._done.found.read)
            return (
                "not_read",
                f"it is at place {self._fused[key]} of the fused list, of which {read} are read: "
                "raise rerank_window or top_k",
            )
        return (
            "not_a_candidate",
            f"no arm has it among its first {request.candidates}: compare `score` with `last` of "
            "each arm, raise candidates, or ask in words of the document",
        )
