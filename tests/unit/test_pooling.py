"""Pooling keeps short texts whole, long ones to a third, and what a query would find in them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rerank.models.pooling import FACTOR, LEAST, pool


def unit_vectors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(0, 1000))
def test_the_result_is_unit_vectors_and_bounded(count: int, seed: int) -> None:
    pooled = pool(unit_vectors(count, seed))
    assert 1 <= len(pooled) <= max(LEAST, -(-count // FACTOR))
    assert pooled.dtype == np.float32
    assert np.allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)


def test_a_short_text_is_kept_as_it_is() -> None:
    vectors = unit_vectors(LEAST, 0)
    assert pool(vectors) is vectors


def test_vectors_that_point_the_same_way_become_one_and_others_stay() -> None:
    seen = unit_vectors(40, 3)
    noise = np.random.default_rng(4).standard_normal((40, 3, 16)).astype(np.float32) / 1000
    copies = (seen[:, None, :] + noise).reshape(-1, 16)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    pooled = pool(copies)
    assert len(pooled) == 40
    assert (seen @ pooled.T).max(axis=1).min() > 0.999


def test_a_text_of_equal_tokens_is_one_vector() -> None:
    pooled = pool(np.repeat(unit_vectors(1, 0), 200, axis=0))
    assert len(pooled) >= 1
    assert np.allclose(pooled, unit_vectors(1, 0), atol=1e-4)
