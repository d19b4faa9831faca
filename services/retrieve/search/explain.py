"""Explain: for one hit, every rank, score and part that put it where it is. Pure functions."""

from collections.abc import Mapping, Sequence

from services.retrieve.protocol import ArmExplanation, CurationExplanation, Explanation
from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.curate import Ranked

Ranks = Mapping[Arm, Mapping[ChunkKey, int]]
Scores = Mapping[Arm, Mapping[ChunkKey, float]]


def ranks(runs: Sequence[Run]) -> Ranks:
    """Each arm's rank of each chunk it returned, from 1, in the list of the chunk's corpus."""
    places: dict[Arm, dict[ChunkKey, int]] = {}
    for run in runs:
        places.setdefault(run.arm, {}).update(
            (key, rank) for rank, (key, _) in enumerate(run.ranked, start=1)
        )
    return places


def explain(ranked: Ranked, rank: int, arm_ranks: Ranks, arm_scores: Scores) -> Explanation:
    """Explain the candidate at final place `rank` (from 1, before threshold and budget).

    `arm_scores` may hold more than the arms returned: the exact scores of the curation window.
    """
    curation = ranked.curation
    return Explanation(
        arms={
            arm: ArmExplanation(
                rank=places.get(ranked.key),
                score=arm_scores[arm].get(ranked.key),
                share=ranked.fused.parts.get(arm, 0.0),
            )
            for arm, places in arm_ranks.items()
        },
        fused_score=ranked.fused.score,
        fused_rank=ranked.fused_rank,
        curation=curation
        and CurationExplanation(
            relevance=curation.relevance,
            z=dict(curation.z),
            blended=curation.blended,
            rank_before=ranked.fused_rank,
            rank_after=rank,
        ),
    )
