"""Vectors that come from another process: read right, or refused as rubbish."""

import base64
from typing import Any

import numpy as np
import pytest

from shared.errors import ApiError
from shared.vectors import read_vectors


def embedding(index: Any, *numbers: float) -> dict[str, Any]:
    data = base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()
    return {"index": index, "embedding": data}


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    vectors = read_vectors({"data": [embedding(1, 3, 4), embedding(0, 1, 2)]}, 2)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 2], [3, 4]]
    assert read_vectors({"data": []}, 0, 384).shape == (0, 384)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        [],
        {},
        {"data": None},
        {"data": [None, None]},
        {"data": [embedding(0, 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding(1, 1, 2), embedding(2, 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding(0, 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding(-1, 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding(2, 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding([], 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding("1", 1, 2)]},
        {"data": [embedding(0, 1, 2), embedding(1, 1)]},
        {"data": [embedding(0, 1, 2), embedding(1, 1, float("nan"))]},
        {"data": [embedding(0, 1, 2), embedding(1, 1, float("inf"))]},
        {"data": [embedding(0, 1, 2), {"index": 1}]},
        {"data": [embedding(0, 1, 2), {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [embedding(0, 1, 2), {"index": 1, "embedding": "?"}]},
        {"data": [embedding(0, 1, 2), {"index": 1, "embedding": "\u00e9"}]},
        {"data": [embedding(0, 1, 2), {"index": 1, "embedding": "AAA="}]},
        {"data": [embedding(0), embedding(1)]},
    ],
)
def test_what_is_not_one_finite_vector_for_each_text_is_refused(answer: Any) -> None:
    with pytest.raises(ApiError, match="embed answered") as failure:
        read_vectors(answer, 2)
    assert (failure.value.status, failure.value.code) == (502, "bad_upstream")


def test_another_dimension_than_the_wanted_one_is_refused() -> None:
    answer = {"data": [embedding(0, 1, 2)]}
    assert read_vectors(answer, 1, 2).shape == (1, 2)
    with pytest.raises(ApiError, match="2 numbers where 3 were expected"):
        read_vectors(answer, 1, 3)
