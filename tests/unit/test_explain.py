"""Explain: where every part of a hit's place comes from."""

import pytest

from services.retrieve.search.candidates import Arm, ChunkKey, Run, Vectors
from services.retrieve.search.curate import curated, uncurated
from services.retrieve.search.explain import explain, ranks
from services.retrieve.search.found import Found
from services.retrieve.search.fusion import FusionMethod, FusionSettings, fuse
from services.retrieve.search.recency import RecencySettings, bonus, lift

RUNS = [
    Run.of(Arm.BM25, "c", [(1, 7.5), (2, 3.0)]),
    Run.of(Arm.DENSE, "c", [(2, 0.6), (3, 0.4)]),
]
FUSED = fuse(RUNS, FusionSettings(FusionMethod.RRF, 60, {Arm.BM25: 1.0, Arm.DENSE: 1.0}))
EXACT = {
    Arm.BM25: {ChunkKey("c", 1): 7.5, ChunkKey("c", 2): 3.0, ChunkKey("c", 3): 0.0},
    Arm.DENSE: {ChunkKey("c", 1): 0.1, ChunkKey("c", 2): 0.6, ChunkKey("c", 3): 0.4},
}


FOUND = Found(
    runs=RUNS,
    vectors=Vectors(),
    fused=FUSED,
    read=FUSED,
    scores=EXACT,
    records={},
    ages_days={ChunkKey("c", 3): 30.0},
    deleted=(),
)


def test_ranks_are_counted_from_one_in_each_corpus_of_each_arm() -> None:
    other = Run.of(Arm.BM25, "d", [(9, 1.0)])
    assert ranks([*RUNS, other]) == {
        Arm.BM25: {ChunkKey("c", 1): 1, ChunkKey("c", 2): 2, ChunkKey("d", 9): 1},
        Arm.DENSE: {ChunkKey("c", 2): 1, ChunkKey("c", 3): 2},
    }
    variant = Run.of(Arm.BM25, "c", [(3, 9.0)], query=1)
    assert ranks([*RUNS, variant]) == ranks(RUNS)


def test_an_arm_that_did_not_return_a_hit_has_no_rank_but_its_exact_score() -> None:
    third = next(one for one in uncurated(FUSED) if one.key.key == 3)
    why = explain(third, third.fused_rank, ranks(RUNS), FOUND, "exact")
    assert why.arms[Arm.BM25].rank is None
    assert why.arms[Arm.BM25].score == 0.0
    assert why.arms[Arm.BM25].share == 0.0
    assert why.arms[Arm.DENSE].rank == 2
    assert why.arms[Arm.DENSE].score == 0.4
    assert why.fused_score == pytest.approx(sum(arm.share for arm in why.arms.values()))
    assert (why.curation, why.recency, why.dense) == (None, None, "exact")


def test_a_curated_hit_tells_how_it_was_judged_and_how_far_it_moved() -> None:
    relevance = {ChunkKey("c", 1): 0.5, ChunkKey("c", 2): 0.55, ChunkKey("c", 3): 0.95}
    ranking = curated(FUSED, relevance, {Arm.DENSE: EXACT[Arm.DENSE]})
    place = next(place for place, one in enumerate(ranking, start=1) if one.key.key == 3)
    why = explain(ranking[place - 1], place, ranks(RUNS), FOUND, "exact").curation
    assert why is not None
    assert why.relevance == 0.95
    assert set(why.z) == {"curator", "dense"}
    assert why.blended == pytest.approx((why.z["curator"] + why.z["dense"]) / 2)
    assert (why.rank_before, why.rank_after) == (3, 1)


def test_a_hit_that_its_date_moved_tells_by_how_much() -> None:
    settings = {"c": RecencySettings(half_life_days=30, weight=0.1)}
    lifted = lift(FUSED, FOUND.ages_days, settings)
    relevance = dict.fromkeys(EXACT[Arm.DENSE], 0.5)
    ranking = curated(lifted, relevance, EXACT, bonus(FOUND.ages_days, settings))
    told = {one.key.key: explain(one, 1, ranks(RUNS), FOUND, "exact").recency for one in ranking}
    assert (told[1], told[2]) == (None, None)
    assert told[3] is not None
    assert told[3].age_days == 30.0
    assert told[3].in_fusion == pytest.approx(0.1 * 0.5 / 1.1)
    assert told[3].in_blend == pytest.approx(settings["c"].most_z * 0.5)
