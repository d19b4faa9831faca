"""Diversity: what says something new comes before what says the same again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.diversity import mmr
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import Vector
from tests.passages import passage


def unit(*angles: float) -> dict[ChunkKey, Vector]:
    """Vectors in the plane by their angles in degrees, for the chunks 0, 1, 2, …"""
    return {
        ChunkKey("c", n): np.array([np.cos(angle), np.sin(angle)], np.float32)
        for n, angle in enumerate(np.radians(angles))
    }


def numbers(passages: list[Passage]) -> list[int]:
    return [one.record.number for one in passages]


RANKED = [passage(0, 0.9), passage(1, 0.8), passage(2, 0.5), passage(3, 0.1)]


def test_without_diversity_the_order_stays_and_no_vector_is_looked_at() -> None:
    assert mmr(RANKED, {}, 0.0, 3) == RANKED[:3]
    assert mmr([], {}, 0.5, 3) == []


def test_a_passage_like_the_first_waits_for_one_that_says_something_else() -> None:
    vectors = unit(0, 2, 80, 90)
    assert numbers(mmr(RANKED, vectors, 0.5, 4)) == [0, 2, 1, 3]
    assert numbers(mmr(RANKED, vectors, 0.1, 4)) == [0, 1, 2, 3]


def test_with_diversity_alone_the_first_stays_and_the_furthest_follows() -> None:
    assert numbers(mmr(RANKED, unit(0, 2, 50, 90), 1.0, 3)) == [0, 3, 2]


def test_the_marginal_relevance_is_that_of_the_paper() -> None:
    scores = [1.0, 0.8, 0.7, 0.0]
    angles = [0.0, 20.0, 45.0, 85.0]
    found = [passage(n, score) for n, score in enumerate(scores)]
    taken = [0]
    while len(taken) < 4:
        marginal = {
            n: 0.6 * scores[n]
            - 0.4 * max(np.cos(np.radians(angles[n] - angles[other])) for other in taken)
            for n in range(4)
            if n not in taken
        }
        taken.append(max(marginal, key=lambda n: marginal[n]))
    assert numbers(mmr(found, unit(*angles), 0.4, 4)) == taken


def test_vectors_that_cannot_be_compared_are_like_nothing() -> None:
    vectors = unit(0, 0, 0, 0)
    vectors[ChunkKey("c", 1)] = np.array([1.0, 0.0, 0.0], np.float32)
    del vectors[ChunkKey("c", 3)]
    assert numbers(mmr(RANKED, vectors, 0.5, 4)) == [0, 1, 3, 2]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 360)), max_size=20),
    st.floats(0, 1),
    st.integers(1, 25),
)
def test_each_passage_comes_once_the_best_first(
    found: list[tuple[float, float]], diversity: float, most: int
) -> None:
    found.sort(key=lambda one: -one[0])
    passages = [passage(n, score) for n, (score, _) in enumerate(found)]
    taken = mmr(passages, unit(*(angle for _, angle in found)), diversity, most)
    assert len(taken) == min(most, len(passages))
    assert len({one.record.id for one in taken}) == len(taken)
    assert taken[:1] == passages[:1]
    if diversity == 0:
        assert taken == passages[:most]
    if found and max(score for score, _ in found) == pytest.approx(found[-1][0], abs=0):
        assert taken[0] == passages[0]
