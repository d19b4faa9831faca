"""Curation: the blend of the curator with the arms, and the score that is shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.curate import arm_z_scores, curated, uncurated, z_scores
from services.retrieve.search.fusion import Fused

unit = st.floats(0, 1)
columns = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(unit, min_size=n, max_size=n),
        st.lists(st.floats(0, 40), min_size=n, max_size=n),
        st.lists(st.floats(-1, 1), min_size=n, max_size=n),
    )
)


def key(number: int) -> ChunkKey:
    return ChunkKey("c", number)


def fused_list(length: int) -> list[Fused]:
    """Candidates 0, 1, 2, … with falling fused scores."""
    return [Fused(key(place), 60 / (60 + place), {}) for place in range(length)]


def window(*values: float) -> dict[ChunkKey, float]:
    return {key(place): value for place, value in enumerate(values)}


def test_a_z_score_counts_standard_deviations_from_the_mean() -> None:
    assert z_scores([1.0, 2.0, 3.0]) == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])


def test_a_column_of_equal_scores_says_nothing() -> None:
    assert not z_scores([0.3, 0.3, 0.3 + 1e-9]).any()
    assert not z_scores([0.4]).any()
    assert z_scores([]).shape == (0,)


def test_the_blend_is_the_mean_of_the_z_scores() -> None:
    ranked = curated(
        fused_list(2),
        window(0.1, 0.9),
        {Arm.BM25: window(5.0, 1.0), Arm.DENSE: window(0.0, 0.5)},
    )
    blended = {one.key.key: one.curation.blended for one in ranked if one.curation}
    assert blended == pytest.approx({0: -1 / 3, 1: 1 / 3})


def test_the_window_is_reordered_and_the_rest_follows_unchanged() -> None:
    ranked = curated(fused_list(5), window(0.2, 0.5, 0.9), {Arm.DENSE: window(0.1, 0.2, 0.3)})
    assert [one.key.key for one in ranked] == [2, 1, 0, 3, 4]
    assert [one.fused_rank for one in ranked] == [3, 2, 1, 4, 5]
    assert [one.curation is not None for one in ranked] == [True, True, True, False, False]


def test_two_against_one_outvote_the_curator() -> None:
    ranked = curated(
        fused_list(2),
        window(0.5, 0.6),
        {Arm.BM25: window(9.0, 1.0), Arm.DENSE: window(0.8, 0.2)},
    )
    assert [one.key.key for one in ranked] == [0, 1]


def test_without_arm_scores_the_curator_decides_and_its_own_scores_are_shown() -> None:
    ranked = curated(fused_list(3), window(0.55, 0.75, 0.65), {})
    assert [one.key.key for one in ranked] == [1, 2, 0]
    assert [one.score for one in ranked] == pytest.approx([0.75, 0.65, 0.55])


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.floats(0.5, 20),
    st.floats(-10, 5),
)
def test_a_calibration_changes_nothing_about_the_blend(
    raw: list[float], slope: float, intercept: float
) -> None:
    raw = [round(one, 3) for one in raw]
    relevance = [1 / (1 + np.exp(-(slope * one + intercept))) for one in raw]
    ranked = curated(fused_list(len(raw)), window(*relevance), {})
    z = {one.key.key: one.curation.z["curator"] for one in ranked if one.curation}
    assert [z[place] for place in range(len(raw))] == pytest.approx(z_scores(raw), abs=1e-4)


def test_a_relevance_of_0_or_1_is_blended_and_shown_like_any_other() -> None:
    ranked = curated(fused_list(3), window(0.0, 1.0, 0.5), {})
    assert [one.key.key for one in ranked] == [1, 2, 0]
    assert [one.score for one in ranked] == pytest.approx([0.9999, 0.5, 0.0001])


def test_a_window_of_equals_keeps_its_fused_order() -> None:
    ranked = curated(fused_list(3), window(0.7, 0.7, 0.7), {Arm.BM25: window(0.0, 0.0, 0.0)})
    assert [one.key.key for one in ranked] == [0, 1, 2]
    assert [one.score for one in ranked] == [0.7, 0.7, 0.7]


def test_what_no_curator_read_is_never_shown_with_more_than_the_window() -> None:
    ranked = curated(fused_list(4), window(0.3, 0.8), {})
    assert ranked[1].score == pytest.approx(0.3)
    assert 0 < ranked[3].score < ranked[2].score < 0.3


def test_without_curation_the_fused_list_is_shown_as_it_is() -> None:
    fused = fused_list(3)
    ranked = uncurated(fused)
    assert [one.fused for one in ranked] == fused
    assert [one.fused_rank for one in ranked] == [1, 2, 3]
    assert [one.score for one in ranked] == [round(one.score, 6) for one in fused]
    assert curated(fused, {}, {}) == ranked


@given(columns, st.integers(0, 10))
def test_shown_scores_stay_in_0_to_1_and_never_rise_along_the_ranking(
    values: tuple[list[float], list[float], list[float]], below: int
) -> None:
    relevance, words, dense = (window(*column) for column in values)
    ranked = curated(
        fused_list(len(relevance) + below), relevance, {Arm.BM25: words, Arm.DENSE: dense}
    )
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert {one.key for one in ranked} == {key(n) for n in range(len(relevance) + below)}


@given(columns)
def test_the_window_is_ordered_by_the_blend(
    values: tuple[list[float], list[float], list[float]],
) -> None:
    relevance, words, dense = (window(*column) for column in values)
    ranked = curated(fused_list(len(relevance)), relevance, {Arm.BM25: words, Arm.DENSE: dense})
    blended = [one.curation.blended for one in ranked if one.curation]
    assert len(blended) == len(relevance)
    assert all(np.diff(blended) <= 0)
    for one in ranked:
        assert one.curation is not None
        assert one.curation.blended == pytest.approx(np.mean(list(one.curation.z.values())))


@given(columns, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_scale_of_an_arm_does_not_matter(
    values: tuple[list[float], list[float], list[float]], factor: float, offset: float
) -> None:
    relevance, words, _ = values
    plain, scaled = (
        curated(fused_list(len(relevance)), window(*relevance), {Arm.BM25: window(*column)})
        for column in (
            [round(word, 2) for word in words],
            [round(word, 2) * factor + offset for word in words],
        )
    )
    first, second = (
        {one.key: one.curation.blended for one in ranked if one.curation}
        for ranked in (plain, scaled)
    )
    assert second == pytest.approx(first, abs=1e-6)


def test_an_arm_that_has_no_score_of_a_chunk_says_nothing_of_it() -> None:
    ranked = curated(
        fused_list(3), window(0.2, 0.5, 0.8), {Arm.BM25: {key(0): 1.0, key(1): 3.0}, Arm.DENSE: {}}
    )
    z = {one.key.key: one.curation for one in ranked}
    assert [set(z[place].z) for place in range(3)] == [  # type: ignore[union-attr]
        {"curator", "bm25"},
        {"curator", "bm25"},
        {"curator"},
    ]
    last = z[2]
    assert last is not None
    assert last.blended == pytest.approx(last.z["curator"] / 3)


def several(*scores: tuple[str, float]) -> dict[ChunkKey, float]:
    """Scores of chunks 0, 1, 2, … of the corpora named."""
    return {ChunkKey(corpus, place): score for place, (corpus, score) in enumerate(scores)}


def test_bm25_orders_the_chunks_of_a_corpus_and_says_nothing_of_two_corpora() -> None:
    # The words of the question are rare in a, and in every document of b.
    scores = several(("a", 20.0), ("a", 30.0), ("b", 0.2), ("b", 0.4))
    z = arm_z_scores(Arm.BM25, list(scores), scores, {"a": 1, "b": 1})
    assert z == pytest.approx([-1, 1, -1, 1])


def test_cosines_by_one_model_are_compared_across_corpora_and_by_two_models_are_not() -> None:
    scores = several(("a", 0.1), ("a", 0.2), ("b", 0.7), ("b", 0.8))
    z = arm_z_scores(Arm.DENSE, list(scores), scores, {"a": "model", "b": "model"})
    assert z == pytest.approx(z_scores([0.1, 0.2, 0.7, 0.8]))
    for spaces in ({"a": "model", "b": "other"}, {}):
        apart = arm_z_scores(Arm.DENSE, list(scores), scores, spaces)
        assert apart == pytest.approx([-1, 1, -1, 1])


def test_a_corpus_with_one_chunk_in_the_window_is_neither_lifted_nor_sunk_by_its_words() -> None:
    scores = several(("a", 20.0), ("a", 30.0), ("b", 50.0))
    assert arm_z_scores(Arm.BM25, list(scores), scores, {})[2] == 0.0


def test_where_the_window_ends_with_nothing_what_is_below_gets_nothing() -> None:
    fused = [Fused(key(0), 0.5, {}), Fused(key(1), 0.0, {}), Fused(key(2), 0.0, {})]
    assert curated(fused, window(0.6, 0.4), {})[2].score == 0.0


def test_a_hole_in_the_window_never_shows_more_than_the_window() -> None:
    ranked = curated(fused_list(3), {key(1): 0.3, key(2): 0.4}, {})
    assert [one.score for one in ranked] == pytest.approx([0.4, 0.3, 0.3])
