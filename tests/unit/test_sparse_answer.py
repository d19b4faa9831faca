"""Sparse vectors as embed answers them: what is read, and what is not believed."""

from typing import Any

import pytest

from services.retrieve.corpus.sparse_answer import read_sparse
from shared.errors import ApiError


def answer(*vectors: Any) -> dict[str, Any]:
    """embed's answer with these vectors, the last one first."""
    data = [{"index": place, "sparse": vector} for place, vector in enumerate(vectors)]
    return {"data": data[::-1]}


def test_vectors_are_read_in_the_order_of_the_inputs() -> None:
    first = {"indices": [3, 70_000], "values": [0.5, 2]}
    found = read_sparse(answer(first, {"indices": [], "values": []}), 2)
    assert [one.tokens.tolist() for one in found] == [[3, 70_000], []]
    assert [one.weights.tolist() for one in found] == [[0.5, 2.0], []]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "rubbish",
        "",
        [],
        {},
        {"indices": [1, 2], "values": [1.0]},
        {"indices": [2, 1], "values": [1.0, 1.0]},
        {"indices": [1, 1], "values": [1.0, 1.0]},
        {"indices": [-1], "values": [1.0]},
        {"indices": [2**31], "values": [1.0]},
        {"indices": [1.0], "values": [1.0]},
        {"indices": [True], "values": [1.0]},
        {"indices": ["1"], "values": [1.0]},
        {"indices": [[1]], "values": [[1.0]]},
        {"indices": [1], "values": [0.0]},
        {"indices": [1], "values": [-1.0]},
        {"indices": [1], "values": [1e39]},
        {"indices": [1], "values": [1e-60]},
        {"indices": [1], "values": [10**400]},
        {"indices": [1], "values": [None]},
        {"indices": [1], "values": [True]},
        {"indices": [1], "values": [float("nan")]},
        {"indices": 1, "values": 1.0},
        {"indices": None, "values": None},
        {"indices": {}, "values": {}},
        {"indices": "", "values": ""},
    ],
    ids=str,
)
def test_what_is_no_sparse_vector_is_refused(wrong: Any) -> None:
    with pytest.raises(ApiError) as caught:
        read_sparse(answer({"indices": [1], "values": [1.0]}, wrong), 2)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


def test_an_answer_without_sparse_vectors_is_refused() -> None:
    with pytest.raises(ApiError):
        read_sparse({"data": [{"index": 0, "embedding": "AAAA"}]}, 1)
