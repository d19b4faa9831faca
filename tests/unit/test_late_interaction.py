"""MaxSim over cached token vectors agrees with the formula, however the documents are blocked."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rerank.models.late_interaction import max_sim
from services.rerank.models.token_cache import TokenCache, TokenVectors


def unit_vectors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kept(vectors: np.ndarray) -> TokenVectors:
    return TokenVectors.of(vectors, len(vectors), 0)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=8), st.integers(1, 20))
def test_max_sim_is_the_mean_of_the_best_cosines(lengths: list[int], query_tokens: int) -> None:
    query = unit_vectors(query_tokens, 0)
    documents = [unit_vectors(length, seed + 1) for seed, length in enumerate(lengths)]
    exact = [(query @ document.T).max(axis=1).mean() for document in documents]
    found = max_sim(query, [kept(document) for document in documents])
    assert np.allclose(found, exact, atol=0.01)


def test_the_cache_lets_go_of_what_was_not_asked_for_the_longest() -> None:
    vectors = kept(unit_vectors(10, 1))
    cache = TokenCache(2 * vectors.nbytes)
    cache.put(b"a", vectors)
    cache.put(b"b", vectors)
    assert cache.get(b"a") is vectors
    cache.put(b"c", vectors)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is vectors
    assert cache.get(b"c") is vectors


def test_a_cache_without_room_keeps_nothing() -> None:
    cache = TokenCache(0)
    cache.put(b"a", kept(unit_vectors(1, 1)))
    assert cache.get(b"a") is None
