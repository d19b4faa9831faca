"""embed, as an ingest needs it: which model it serves, how that model counts, and vectors.

A vector that is not what it should be is never stored: it would be searched for ever.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.stores.base import CorpusInfo, ModelStamp, Vector
from shared.client import ServiceClient
from shared.errors import ApiError

_BATCH = 32  # texts in one request: about two batches of embed's own
_IN_FLIGHT = 2  # one is computed while the next one waits there already
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ServedModel:
    """The model that embed serves now. `max_tokens` counts a whole input with special tokens."""

    stamp: ModelStamp
    max_tokens: int


class DocumentEmbedder:
    """Vectors of chunks, by the service embed. Every method raises what `ServiceClient` does."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._counters: dict[ModelStamp, TokenCounter] = {}

    async def served(self) -> ServedModel:
        """Ask embed for its model. Raises ApiError 502 where the answer makes no sense."""
        info = await self._client.get("/info")
        try:
            stamp = ModelStamp(str(info["model"]), str(info["revision"]), int(info["dimension"]))
            return ServedModel(stamp, int(info["max_tokens"]))
        except (KeyError, TypeError, ValueError):
            raise _bad("no model, revision, dimension and max_tokens at /info") from None

    async def counter(self, corpus: CorpusInfo) -> TokenCounter:
        """The token counter of the corpus's own model.

        Raises ApiError 409 `model_mismatch` where embed serves another one, 502 for an answer that
        is no tokenizer.
        """
        served = (await self.served()).stamp
        if served != corpus.stamp:
            raise model_mismatch(corpus, served)
        if served not in self._counters:
            data = await self._client.get_bytes(f"/v1/models/{served.model}/tokenizer")
            try:
                self._counters[served] = await asyncio.to_thread(TokenCounter, data)
            except ValueError:
                raise _bad("something that is not a tokenizer.json") from None
        return self._counters[served]

    async def vectors(self, inputs: Sequence[str], corpus: CorpusInfo) -> Vector:
        """The unit vectors of chunks, float32 [len(inputs), dimension], in their order.

        Raises ApiError 502 `bad_embedding` unless there is one finite unit vector of the corpus's
        dimension for each input, made from the whole of it.
        """
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def batch(texts: Sequence[str]) -> Vector:
            async with slots:
                body = {
                    "input": texts,
                    "model": corpus.model,
                    "input_type": "document",
                    "encoding_format": "base64",
                }
                answer = await self._client.post("/v1/embeddings", body)
            return _read(answer, len(texts), corpus)

        starts = range(0, len(inputs), _BATCH)
        try:
            # A group: when one request fails, the others are not left running.
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(batch(inputs[at : at + _BATCH])) for at in starts]
        except* ApiError as failures:
            raise failures.exceptions[0] from None
        parts = [task.result() for task in tasks]
        return np.concatenate(parts) if parts else np.empty((0, corpus.dimension), np.float32)


def model_mismatch(corpus: CorpusInfo, served: ModelStamp) -> ApiError:
    """The error for using a corpus with another model than the one that made its vectors."""
    made = corpus.stamp
    return ApiError(
        409,
        "model_mismatch",
        f"corpus '{corpus.name}' was made with {made.model} {made.revision} ({made.dimension} "
        f"dimensions), and embed serves {served.model} {served.revision} ({served.dimension}): "
        "start embed with the corpus's model, or load the documents into a new corpus",
    )


def _read(answer: Any, count: int, corpus: CorpusInfo) -> Vector:
    """The rows of one answer of /v1/embeddings, checked."""
    rows: list[Vector | None] = [None] * count
    try:
        for item in answer["data"]:
            data = base64.b64decode(item["embedding"], validate=True)
            rows[item["index"]] = np.frombuffer(data, dtype="<f4")
        cut = answer.get("truncated")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, binascii.Error):
        raise _bad("something that is not a list of embeddings") from None
    if cut:
        raise _bad("vectors of chunks that it cut; it counts tokens otherwise than its tokenizer")
    vectors = [row for row in rows if row is not None]
    if len(vectors) != count or len(answer["data"]) != count:
        raise _bad(f"{len(answer['data'])} vectors where {count} were expected")
    for vector in vectors:
        if vector.size != corpus.dimension:
            raise _bad(f"{vector.size} numbers where {corpus.dimension} were expected")
    matrix = np.stack(vectors).astype(np.float32)
    norms = np.linalg.norm(matrix, axis=1)
    # Written so that NaN fails it, too.
    if not bool(np.all(np.abs(norms - 1.0) <= _NORM_TOLERANCE)):
        raise _bad("a vector that is not of length 1 (or holds NaN or infinity)")
    return matrix


def _bad(what: str) -> ApiError:
    return ApiError(502, "bad_embedding", f"embed answered {what}; nothing was stored")
