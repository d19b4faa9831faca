"""The sparse vectors in an answer of embed, which is believed no more than any other's."""

from typing import Any

import numpy as np

from services.retrieve.stores.sparse_vector import Sparse
from shared.vectors import bad_embed


def read_sparse(answer: Any, count: int) -> list[Sparse]:
    """The sparse vectors in embed's answer of `POST /v1/embeddings`, in the order of the inputs.

    `shared.vectors.read_vectors` must have read the answer for `count` inputs before. Raises
    ApiError 502 `bad_upstream` where an input has none, or one that is not sound.
    """
    found: dict[int, Sparse] = {}
    for item in answer["data"]:
        try:
            tokens, weights = item["sparse"]["indices"], item["sparse"]["values"]
            found[item["index"]] = _sparse(tokens, weights)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise bad_embed(
                "no sparse vectors, or such whose token ids do not ascend from 0 or whose weights "
                "are not above 0"
            ) from None
    return [found[place] for place in range(count)]


def _sparse(tokens: Any, weights: Any) -> Sparse:
    """Raises ValueError, TypeError and OverflowError for what is no sparse vector."""
    # NumPy would take true for 1 and "2" for 2, and half a token for a whole one.
    if not all(type(token) is int for token in tokens):
        raise ValueError("token ids that are no whole numbers")
    if not all(type(weight) in (int, float) for weight in weights):
        raise ValueError("weights that are no numbers")
    with np.errstate(over="ignore"):  # what float32 can't hold is infinite, and refused for it
        return Sparse(np.array(tokens, np.int32), np.array(weights, np.float32))
