"""Answers of embed, made off the event loop where they are large."""

import asyncio
import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import Response

from services.embed.inputs import shorten
from services.embed.models.base import ModelInfo, Reading, Vectors
from services.embed.protocol import EmbeddingRequest
from shared.envelope import json_response

# An answer about more texts takes longer than handing it to a thread.
_INLINE_TEXTS = 64


async def made(texts: int, make: Callable[[], Response]) -> Response:
    """The answer about so many texts, made on a thread where they are many."""
    return make() if texts <= _INLINE_TEXTS else await asyncio.to_thread(make)


def in_pieces(rows: Iterable[Any]) -> list[orjson.Fragment]:
    """The rows as JSON, one by one: within one call, nothing else of the process would run."""
    return [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows]


def dense_vectors(readings: Sequence[Reading]) -> Vectors:
    """The dense vectors of all texts, float32 [n, d]."""
    return np.stack([one.dense for one in readings if one.dense is not None])


def embeddings_answer(
    readings: Sequence[Reading], info: ModelInfo, request: EmbeddingRequest
) -> Response:
    """OpenAI's answer to what a model made of the texts of a request."""
    items: list[dict[str, Any]] = [
        {"object": "embedding", "index": place} for place in range(len(readings))
    ]
    if "dense" in request.outputs:
        vectors = shorten(dense_vectors(readings), request.dimensions)
        for item, vector in zip(items, vectors, strict=True):
            item["embedding"] = _encode(vector, request.encoding_format)
    for item, reading in zip(items, readings, strict=True):
        if reading.sparse is not None:
            words = sorted(reading.sparse)
            values = [reading.sparse[word] for word in words]
            item["sparse"] = {"indices": words, "values": values}
        if reading.token_vectors is not None:
            rows = (_encode(row, request.encoding_format) for row in reading.token_vectors)
            item["token_embeddings"] = in_pieces(rows)
    tokens = sum(one.tokens for one in readings)
    answer: dict[str, Any] = {
        "object": "list",
        "data": in_pieces(items),
        "model": info.model,
        "revision": info.revision,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    cut = [{"index": place, "tokens_cut": one.cut} for place, one in enumerate(readings) if one.cut]
    if cut:
        answer["truncated"] = cut
    return json_response(200, answer)


def _encode(vector: Vectors, encoding: str) -> Vectors | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return np.ascontiguousarray(vector)
