"""Fusion of ranked lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.fusion import (
    METHODS,
    Fused,
    FusionMethod,
    FusionSettings,
    fuse,
    places,
)

BOTH = {Arm.BM25: 1.0, Arm.DENSE: 1.0}


def settings(k: float = 60, **weights: float) -> FusionSettings:
    return FusionSettings(
        FusionMethod.RRF, k, {Arm(name): weight for name, weight in weights.items()} or BOTH
    )


def run(arm: Arm, *keys: int, corpus: str = "c") -> Run:
    """A list of these keys whose raw scores fall from 9."""
    return Run.of(arm, corpus, [(key, 9.0 - place) for place, key in enumerate(keys)])


def relative(spaces: dict[str, str] | None = None, **weights: float) -> FusionSettings:
    return FusionSettings(
        FusionMethod.RELATIVE_SCORE,
        60,
        {Arm(name): weight for name, weight in weights.items()} or BOTH,
        spaces or {},
    )


def scored(arm: Arm, scores: dict[int, float], corpus: str = "c", query: int = 0) -> Run:
    """A list with these raw scores by key."""
    best_first = sorted(scores.items(), key=lambda one: -one[1])
    return Run.of(arm, corpus, best_first, query)


def by_key(fused: list[Fused]) -> dict[tuple[str, int], float]:
    return {(one.key.corpus, one.key.key): one.score for one in fused}


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


def test_relative_scores_are_what_is_above_the_least_as_share_of_the_spread() -> None:
    runs = [
        scored(Arm.BM25, {1: 12.0, 2: 6.0, 3: 2.0}),
        scored(Arm.DENSE, {2: 0.8, 4: 0.5, 5: 0.3}),
    ]
    fused = fuse(runs, relative(bm25=1.0, dense=3.0))
    assert by_key(fused) == pytest.approx(
        {
            ("c", 2): (0.4 + 3.0) / 4,
            ("c", 4): 3 * 0.4 / 4,
            ("c", 1): 1 / 4,
            ("c", 3): 0.0,
            ("c", 5): 0.0,
        }
    )
    assert fused[0].parts == {Arm.BM25: pytest.approx(0.1), Arm.DENSE: pytest.approx(0.75)}


def test_in_a_list_of_one_or_of_equal_scores_each_counts_as_the_highest() -> None:
    assert by_key(fuse([scored(Arm.BM25, {1: 3.0})], relative())) == {("c", 1): 0.5}
    assert by_key(fuse([scored(Arm.DENSE, {1: 0.4, 2: 0.4})], relative(dense=1.0))) == {
        ("c", 1): 1.0,
        ("c", 2): 1.0,
    }
    assert fuse([scored(Arm.DENSE, {})], relative()) == []


@given(st.dictionaries(st.integers(0, 30), st.floats(-1, 50)), st.floats(0.1, 9), st.floats(-9, 9))
def test_relative_scores_do_not_depend_on_an_arms_scale(
    scores: dict[int, float], factor: float, offset: float
) -> None:
    scores = {number: round(score, 3) for number, score in scores.items()}
    moved = {number: score * factor + offset for number, score in scores.items()}
    plain, other = (fuse([scored(Arm.BM25, one)], relative()) for one in (scores, moved))
    assert by_key(other) == pytest.approx(by_key(plain), abs=1e-6)


several = st.dictionaries(
    st.sampled_from("abcde"),
    st.tuples(
        st.dictionaries(st.integers(0, 20), st.floats(0, 40), max_size=8),
        st.dictionaries(st.integers(0, 20), st.floats(-1, 1), max_size=8),
    ),
)


@given(several, st.sampled_from(FusionMethod), weights, weights, st.integers(1, 3))
def test_every_method_shares_the_best_possible_among_any_corpora_and_queries(
    corpora: dict[str, tuple[dict[int, float], dict[int, float]]],
    method: FusionMethod,
    a: float,
    b: float,
    queries: int,
) -> None:
    runs = [
        scored(arm, found, corpus, query)
        for corpus, both in corpora.items()
        for arm, found in zip((Arm.BM25, Arm.DENSE), both, strict=True)
        for query in range(queries)
    ]
    fused = fuse(
        runs, FusionSettings(method, 60, {Arm.BM25: a, Arm.DENSE: b}, {"a": 1, "b": 1, "c": 2})
    )
    assert sorted(one.key for one in fused) == sorted({key for r in runs for key, _ in r.ranked})
    scores = [one.score for one in fused]
    assert scores == sorted(scores, reverse=True)
    for one in fused:
        assert 0 <= one.score <= 1
        assert one.score == pytest.approx(sum(one.parts.values()))


def test_the_queries_of_an_arm_share_its_weight() -> None:
    runs = [
        Run.of(Arm.BM25, "c", [(1, 9.0)]),
        Run.of(Arm.DENSE, "c", [(1, 0.9)]),
        Run.of(Arm.DENSE, "c", [(2, 0.9)], query=1),
        Run.of(Arm.DENSE, "c", [(2, 0.9)], query=2),
    ]
    for settings_ in (settings(), relative()):
        assert by_key(fuse(runs, settings_)) == pytest.approx(
            {("c", 1): 1 / 2 + 1 / 6, ("c", 2): 2 / 6}
        )


def test_a_chunk_that_every_query_of_every_arm_ranks_first_has_the_score_one() -> None:
    runs = [Run.of(arm, "c", [(1, 0.5), (2, 0.1)], query) for arm in BOTH for query in range(5)]
    for settings_ in (settings(), relative()):
        assert fuse(runs, settings_)[0].score == pytest.approx(1.0)


def test_interleaved_lists_share_the_places_that_equal_ranks_take() -> None:
    a, b, c = (
        [(ChunkKey(name, number), 1.0) for number in range(length)]
        for name, length in (("a", 4), ("b", 2), ("c", 1))
    )
    assert places([a, b, c]) == {
        ("a", 0): 2,
        ("b", 0): 2,
        ("c", 0): 2,
        ("a", 1): 4.5,
        ("b", 1): 4.5,
        ("a", 2): 6,
        ("a", 3): 7,
    }
    assert list(places([a]).values()) == [1, 2, 3, 4]
    assert places([]) == {}


def test_cosines_of_one_model_are_one_list_whatever_the_corpus() -> None:
    runs = [
        scored(Arm.DENSE, {1: 0.9, 2: 0.8, 3: 0.7}, "large"),
        scored(Arm.DENSE, {1: 0.2, 2: 0.1}, "small"),
    ]
    one_model = {"large": "m", "small": "m"}
    shared = FusionSettings(FusionMethod.RRF, 60, {Arm.DENSE: 1.0}, one_model)
    assert [one.key for one in fuse(runs, shared)] == [
        ("large", 1),
        ("large", 2),
        ("large", 3),
        ("small", 1),
        ("small", 2),
    ]
    assert by_key(fuse(runs, relative(one_model, dense=1.0)))["small", 1] == pytest.approx(0.125)
    apart = FusionSettings(FusionMethod.RRF, 60, {Arm.DENSE: 1.0}, {"large": "m", "small": "n"})
    assert [one.key.corpus for one in fuse(runs, apart)] == [
        "large",
        "small",
        "large",
        "small",
        "large",
    ]


@pytest.mark.parametrize("right", ["c0", "tiny"])
def test_among_ten_corpora_the_right_one_is_found_be_it_large_or_tiny(right: str) -> None:
    """Words match a little in every corpus; only in the right one do the vectors match, too."""
    sizes = {"tiny": 5} | {f"c{number}": 100 for number in range(9)}
    runs = []
    for name, size in sizes.items():
        runs.append(scored(Arm.BM25, {n: 20.0 - n / 10 for n in range(size)}, name))
        near = 0.8 if name == right else 0.3
        runs.append(scored(Arm.DENSE, {n: near - n / 1000 for n in range(size)}, name))
    spaces = dict.fromkeys(sizes, "model")
    for method in FusionMethod:
        fused = fuse(runs, FusionSettings(method, 60, BOTH, spaces))
        assert fused[0].key.corpus == right
        window = [one.key.corpus for one in fused[:50]]
        assert window.count("tiny") <= 5
    by_places = fuse(runs, FusionSettings(FusionMethod.RRF, 60, BOTH, spaces))
    window = [one.key.corpus for one in by_places[:50]]
    # No corpus whose words match drowns: each has a place in the window, the right one its five.
    assert set(window) == set(sizes)
    assert window.count(right) >= 5


def test_what_one_arm_finds_in_wrong_corpora_does_not_push_out_what_the_other_finds() -> None:
    wrong = [scored(Arm.BM25, {n: 9.0 - n / 10 for n in range(50)}, f"c{c}") for c in range(9)]
    right = scored(Arm.DENSE, {n: 0.9 - n / 100 for n in range(50)}, "right")
    fused = fuse([*wrong, right], settings())
    window = [one.key.corpus for one in fused[:50]]
    assert window.count("right") >= 20
