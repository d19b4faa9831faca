"""The inverted index of sparse vectors against plain dot products."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.stores.local.sparse import SparseIndex
from services.retrieve.stores.local.sparse_rows import SparseRows, packed
from services.retrieve.stores.sparse_vector import Sparse

Words = Mapping[int, float]

words = st.dictionaries(
    st.integers(0, 12) | st.just(2**31 - 1),
    st.floats(2**-20, 2**20, width=32) | st.sampled_from([0.5, 1.0]),
    max_size=8,
)
# A change: which of those that are there go, by their places, what comes, and whether to merge.
changes = st.lists(
    st.tuples(
        st.lists(st.integers(0, 200), max_size=30), st.lists(words, max_size=12), st.booleans()
    ),
    max_size=12,
)


def sparse(by_token: Words) -> Sparse:
    tokens = sorted(by_token)
    return Sparse(
        np.array(tokens, np.int32), np.array([by_token[token] for token in tokens], np.float32)
    )


def dot(one: Words, other: Words) -> float:
    return sum(one[token] * other[token] for token in sorted(one) if token in other)


def empty() -> SparseIndex:
    return SparseIndex(SparseRows.of([], []))


def ranked(truth: Mapping[int, Words], query: Words) -> list[tuple[int, float]]:
    """What a search should find, all of it."""
    scores = {key: dot(query, held) for key, held in truth.items()}
    found = [(key, score) for key, score in scores.items() if score > 0]
    return sorted(found, key=lambda one: (-one[1], one[0]))


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.long)])
def test_after_any_changes_scores_are_the_plain_dot_products(examples: int) -> None:
    @settings(max_examples=examples)
    @given(changes, words, st.sets(st.integers(0, 200)), st.integers(1, 20))
    def holds(
        changes: list[tuple[list[int], list[Words], bool]],
        query: Words,
        scope: set[int],
        limit: int,
    ) -> None:
        index, truth, next_key = empty(), dict[int, Words](), 1
        for places, added, merging in changes:
            there = sorted(truth)
            gone = {there[place] for place in places if place < len(there)}
            keys = list(range(next_key, next_key + len(added)))
            index.change([*gone, 10_000], keys, [sparse(one) for one in added])
            if merging:
                index.merge()
            truth = {key: held for key, held in truth.items() if key not in gone}
            truth.update(zip(keys, added, strict=True))
            next_key += len(added)
        expected = ranked(truth, query)
        # Products of two float32 are exact in float64, and both sums go by ascending token.
        assert index.search(sparse(query), 1000) == expected
        assert index.search(sparse(query), limit) == expected[:limit]
        within = [one for one in expected if one[0] in scope]
        allowed = np.array(sorted(scope), np.int64)
        assert index.search(sparse(query), limit, allowed) == within[:limit]
        scores = index.scores(sparse(query), [*range(next_key), 10_000])
        assert scores == {key: dot(query, held) for key, held in truth.items()}
        rows = [(key, packed(sparse(held))) for key, held in truth.items()]
        again = SparseIndex(
            SparseRows.joined([SparseRows.unpacked(rows[:3]), SparseRows.of([], [])])
        )
        assert again.search(sparse(query), 1000) == ranked(dict(list(truth.items())[:3]), query)

    holds()


def test_many_small_writes_leave_few_segments_and_removed_chunks_leave_none() -> None:
    index = empty()
    for key in range(1, 501):
        index.change([], [key], [sparse({key % 7: 1.0, 100 + key % 3: 0.5})])
        index.merge()
    assert len(index._segments) <= 10
    index.change(range(1, 491), [], [])
    index.merge()
    assert sum(one.size for one in index._segments) <= 2 * 30
    assert [key for key, _ in index.search(sparse({100: 1.0, 101: 1.0, 102: 1.0}), 50)] == list(
        range(491, 501)
    )
    index.change(range(491, 501), [], [])
    index.merge()
    assert index._segments == ()


def test_a_few_chunks_among_many_have_the_very_scores_of_the_list() -> None:
    index, chance = empty(), np.random.default_rng(5)
    held = [
        sparse({int(token): float(chance.random() + 0.1) for token in chance.integers(0, 40, 9)})
        for _ in range(3000)
    ]
    index.change([], range(1, 2001), held[:2000])
    index.change([5, 900], range(2001, 3001), held[2000:])
    query = sparse(dict.fromkeys(range(0, 40, 3), 0.3))
    every = dict(index.search(query, 5000))
    for few in ([1, 900, 2500, 2999, 4000], range(1, 3001, 40), range(1, 3001, 2), []):
        scores = index.scores(query, few)
        assert set(scores) == {key for key in few if key <= 3000 and key not in (5, 900)}
        assert {key: score for key, score in scores.items() if score} == {
            key: every[key] for key in few if key in every
        }
        within = index.search(query, 5000, np.array(few, np.int64))
        assert dict(within) == {key: every[key] for key in few if key in every}


def test_a_limit_of_none_or_a_query_without_words_finds_nothing() -> None:
    index = empty()
    index.change([], [1], [sparse({1: 1.0})])
    assert index.search(sparse({1: 1.0}), 0) == []
    assert index.search(sparse({}), 5) == []
    assert index.scores(sparse({}), [1]) == {1: 0.0}


@pytest.mark.parametrize("keys", [[2, 2], [1], [4, 3], [5]])
def test_keys_must_ascend_and_have_a_vector_each(keys: list[int]) -> None:
    index = empty()
    index.change([], [1, 2], [sparse({1: 1.0}), sparse({2: 1.0})])
    vectors = [sparse({3: 1.0})] * (len(keys) if keys != [5] else 2)
    with pytest.raises(ValueError, match=r"keys"):
        index.change([1], keys, vectors)
    assert index.search(sparse({1: 1.0, 2: 1.0, 3: 1.0}), 5) == [(1, 1.0), (2, 1.0)]


@pytest.mark.parametrize(
    ("tokens", "weights"),
    [
        ([1, 1], [1, 1]),
        ([2, 1], [1, 1]),
        ([-1, 1], [1, 1]),
        ([2**31 - 1, -(2**31)], [1, 1]),
        ([1], [0]),
        ([1], [-1]),
        ([1], [np.nan]),
        ([1], [np.inf]),
        ([1], [1, 1]),
        ([1], []),
        ([[1]], [[1]]),
    ],
)
def test_what_is_no_sparse_vector_is_refused_also_when_it_was_stored(
    tokens: list[int], weights: list[float]
) -> None:
    arrays = np.array(tokens, np.int32), np.array(weights, np.float32)
    with pytest.raises(ValueError, match=r"\w"):
        Sparse(*arrays)
    if arrays[0].shape == arrays[1].shape:
        stored = np.empty(arrays[0].size, [("token", "<i4"), ("weight", "<f4")])
        stored["token"], stored["weight"] = (array.ravel() for array in arrays)
        if arrays[0].ndim == 1:
            good = packed(sparse({5: 1.0}))
            with pytest.raises(ValueError, match=r"sparse"):
                SparseRows.unpacked([(1, good), (2, stored.tobytes()), (3, good)])


def test_half_a_stored_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"half"):
        SparseRows.unpacked([(1, packed(sparse({1: 1.0}))[:-4])])


def test_arrays_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"int64 and float64"):
        Sparse(np.array([1]), np.array([1.0]))


def test_a_search_sees_a_state_that_there_was_however_much_is_written() -> None:
    """A chunk is replaced over and over in one change each: there is always exactly one."""
    index, over = empty(), threading.Event()
    index.change([], [1], [sparse({1: 1.0})])

    def watch() -> int:
        searches = 0
        while not over.is_set():
            assert len(index.search(sparse({1: 1.0}), 5)) == 1
            searches += 1
        return searches

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        try:
            for key in range(2, 400):
                index.change([key - 1], [key], [sparse({1: 1.0})])
                index.merge()
        finally:
            over.set()
        assert watcher.result() > 0
