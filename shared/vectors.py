"""Vectors as our own services send them to each other: base64 of little-endian float32."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import ApiError


def read_vectors(answer: Any, count: int, dimension: int | None = None) -> NDArray[np.float32]:
    """The vectors in embed's answer of `POST /v1/embeddings` with `encoding_format: base64`.

    float32 [count, dimension], in the order of the inputs, of any length but finite; without
    `dimension` they need only agree on one. Raises ApiError 502 `bad_upstream` for anything else:
    what comes back from another process is not believed unseen.
    """
    rows: dict[int, NDArray[np.float32]] = {}
    try:
        for item in answer["data"]:
            data = base64.b64decode(item["embedding"], validate=True)
            rows[item["index"]] = np.frombuffer(data, dtype="<f4")
        sent = len(answer["data"])
    except (KeyError, TypeError, ValueError):
        raise bad_embed("something that is not a list of embeddings") from None
    if sent != count or rows.keys() != set(range(count)):
        raise bad_embed(f"{sent} embeddings that are not one for each of {count} texts")
    wanted = dimension or (rows[0].size if rows else 0)
    for row in rows.values():
        if row.size != wanted or not row.size:
            raise bad_embed(f"{row.size} numbers where {wanted or 'some'} were expected")
    vectors = np.array([rows[place] for place in range(count)], np.float32).reshape(count, wanted)
    if not np.isfinite(vectors).all():
        raise bad_embed("a vector with NaN or infinity")
    return vectors


def embedder_of(answer: Any) -> str:
    """The model that an answer of embed is of, ``name@revision``. Raises ApiError as above."""
    try:
        return f"{answer['model']}@{answer['revision']}"
    except (KeyError, TypeError):
        raise bad_embed("without the name and revision of its model") from None


def bad_embed(what: str) -> ApiError:
    """The error for an embed that answers what it should not: 502 `bad_upstream`."""
    return ApiError(502, "bad_upstream", f"embed answered {what}")
