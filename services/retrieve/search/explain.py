"""Explain: for one hit, every rank, score and part that put it where it is. Pure functions."""

from collections.abc import Mapping, Sequence

from services.retrieve.protocol import (
    ArmExplanation,
    CurationExplanation,
    Explanation,
    RecencyExplanation,
)
from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.curate import Ranked
from services.retrieve.search.found import Found

Ranks = Mapping[Arm, Mapping[ChunkKey, int]]


def ranks(runs: Sequence[Run]) -> Ranks:
    """Each arm's rank of each chunk it returned for the question, from 1, in the list of the
    chunk's corpus."""
    places: dict[Arm, dict[ChunkKey, int]] = {}
    for run in runs:
        if not run.query:
            places.setdefault(run.arm, {}).update(
                (key, rank) for rank, (key, _) in enumerate(run.ranked, start=1)
            )
    return places


def explain(
    ranked: Ranked, rank: int, arm_ranks: Ranks, found: Found, dense_method: str
) -> Explanation:
    """Explain the candidate at final place `rank` (from 1, before threshold and budget).

    `found.scores` may hold more than the arms returned: the exact scores of the curation window.
    """
    curation, fused = ranked.curation, ranked.fused
    lifted = fused.recency or (curation is not None and curation.recency)
    return Explanation(
        arms={
            arm: ArmExplanation(
                rank=places.get(ranked.key),
                score=found.scores.get(arm, {}).get(ranked.key),
                share=fused.parts.get(arm, 0.0),
            )
            for arm, places in arm_ranks.items()
        },
        fused_score=fused.score,
        fused_rank=ranked.fused_rank,
        recency=RecencyExplanation(
            age_days=found.ages_days.get(ranked.key),
            in_fusion=fused.recency,
            in_blend=curation.recency if curation else None,
        )
        if lifted
        else None,
        curation=curation
        and CurationExplanation(
            relevance=curation.relevance,
            z=dict(curation.z),
            blended=curation.blended,
            rank_before=ranked.fused_rank,
            rank_after=rank,
        ),
        dense=dense_method if Arm.DENSE in arm_ranks else None,
    )
