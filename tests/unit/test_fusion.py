"""Fusion of ranked lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.fusion import METHODS, FusionMethod, FusionSettings, fuse

BOTH = {Arm.BM25: 1.0, Arm.DENSE: 1.0}


def settings(k: float = 60, **weights: float) -> FusionSettings:
    return FusionSettings(
        FusionMethod.RRF, k, {Arm(name): weight for name, weight in weights.items()} or BOTH
    )


def run(arm: Arm, *keys: int, corpus: str = "c") -> Run:
    """A list of these keys whose raw scores fall from 9."""
    return Run.of(arm, corpus, [(key, 9.0 - place) for place, key in enumerate(keys)])


lists = st.lists(st.integers(0, 30), unique=True, max_size=20)
weights = st.floats(0.01, 100)


def test_a_candidate_gets_weight_over_k_plus_rank_of_each_list_as_share_of_the_best() -> None:
    fused = fuse([run(Arm.BM25, 7, 8), run(Arm.DENSE, 8, 9)], settings(k=10, bm25=2.0, dense=3.0))
    best = 5 / 11
    by_key = {one.key.key: one for one in fused}
    assert by_key[7].score == pytest.approx(2 / 11 / best)
    assert by_key[8].score == pytest.approx((2 / 12 + 3 / 11) / best)
    assert by_key[9].score == pytest.approx(3 / 12 / best)
    assert by_key[8].parts == {
        Arm.BM25: pytest.approx(2 / 12 / best),
        Arm.DENSE: pytest.approx(3 / 11 / best),
    }
    assert [one.key.key for one in fused] == [8, 9, 7]


def test_a_chunk_that_every_arm_ranks_first_has_the_score_one() -> None:
    assert fuse([run(Arm.BM25, 4), run(Arm.DENSE, 4)], settings())[0].score == pytest.approx(1.0)


def test_an_arm_that_failed_lowers_the_scores_of_what_the_other_found() -> None:
    assert fuse([run(Arm.BM25, 4)], settings())[0].score == pytest.approx(0.5)


def test_equal_scores_are_ordered_by_corpus_and_key() -> None:
    runs = [
        run(Arm.BM25, 5, corpus="b"),
        run(Arm.BM25, 9, corpus="a"),
        run(Arm.DENSE, 3, corpus="a"),
    ]
    assert [one.key for one in fuse(runs, settings())] == [
        ChunkKey("a", 3),
        ChunkKey("a", 9),
        ChunkKey("b", 5),
    ]


def test_the_same_key_in_two_corpora_is_two_candidates() -> None:
    fused = fuse([run(Arm.BM25, 1, corpus="a"), run(Arm.BM25, 1, corpus="b")], settings())
    assert {one.key for one in fused} == {ChunkKey("a", 1), ChunkKey("b", 1)}


def test_no_lists_give_no_candidates() -> None:
    assert fuse([], settings()) == []
    assert fuse([run(Arm.BM25), run(Arm.DENSE)], settings()) == []


def test_every_method_that_can_be_named_is_in_the_table() -> None:
    assert set(METHODS) == set(FusionMethod)


@given(lists, lists, st.floats(1, 1000), weights, weights)
def test_every_candidate_comes_once_with_a_score_in_0_to_1_best_first(
    words: list[int], dense: list[int], k: float, a: float, b: float
) -> None:
    runs = [run(Arm.BM25, *words), run(Arm.DENSE, *dense)]
    fused = fuse(runs, settings(k=k, bm25=a, dense=b))
    assert sorted(one.key.key for one in fused) == sorted({*words, *dense})
    scores = [one.score for one in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    for one in fused:
        assert one.score == pytest.approx(sum(one.parts.values()))


@given(lists, lists, st.floats(1, 1000))
def test_the_order_of_the_lists_does_not_matter(
    words: list[int], dense: list[int], k: float
) -> None:
    runs = [run(Arm.BM25, *words), run(Arm.DENSE, *dense)]
    assert fuse(runs, settings(k=k)) == fuse(runs[::-1], settings(k=k))


@given(lists.filter(bool), st.floats(1, 1000))
def test_one_list_alone_keeps_its_order(words: list[int], k: float) -> None:
    fused = fuse([run(Arm.BM25, *words)], settings(k=k, bm25=1.0))
    assert [one.key.key for one in fused] == words
