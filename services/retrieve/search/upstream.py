"""The services that a search asks: embed for the query's vector, rerank for the curator's view.

Nothing that comes back is believed unseen: a wrong dimension, a NaN or a missing score raises
ApiError 502 like any other answer that is not what it should be.
"""

import base64
import binascii
import math
import time
from collections.abc import Sequence

import numpy as np

from services.retrieve.corpus.embedding import DocumentEmbedder, model_mismatch
from services.retrieve.stores.base import CorpusInfo, ModelStamp, Vector
from shared.client import ServiceClient
from shared.errors import ApiError

# How long embed's word on which model it serves is believed. It changes when embed is restarted
# with other settings; asking before every query would cost every query a round trip.
_STAMP_SECONDS = 5.0


class Librarian:
    """embed, as a search needs it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._embedder = DocumentEmbedder(client)
        self._served: ModelStamp | None = None
        self._asked_at = 0.0

    async def query_vector(self, query: str, corpus: CorpusInfo) -> Vector:
        """The unit vector of `query` (float32 [d]) in the space of the corpus's own vectors.

        Raises ApiError: 409 `model_mismatch` where embed serves another model than the one that
        made the corpus, 502 for rubbish, else what the client raises.
        """
        served = self._served
        if served is None or time.monotonic() - self._asked_at > _STAMP_SECONDS:
            served = await self.ask()
        if served != corpus.stamp:
            raise model_mismatch(corpus, served)
        body = {
            "input": query,
            "model": corpus.model,
            "encoding_format": "base64",
            "input_type": "query",
        }
        answer = await self._client.post("/v1/embeddings", body)
        try:
            data = base64.b64decode(answer["data"][0]["embedding"], validate=True)
            vector = np.frombuffer(data, dtype="<f4")
        except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
            raise _rubbish("embed", "something that is not an embedding") from None
        if vector.shape != (corpus.dimension,):
            raise _rubbish("embed", f"{vector.size} numbers where {corpus.dimension} were expected")
        norm = float(np.linalg.norm(vector))
        if not math.isfinite(norm) or norm == 0.0:
            raise _rubbish("embed", "a vector without a direction (zeros, NaN or infinity)")
        unit: Vector = (vector / norm).astype(np.float32)
        return unit

    async def ask(self) -> ModelStamp:
        """The model that embed serves now. Raises ApiError unless embed answers."""
        served = (await self._embedder.served()).stamp
        self._served, self._asked_at = served, time.monotonic()
        return served


class Curator:
    """rerank, as a search needs it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def relevance(self, query: str, documents: Sequence[str]) -> list[float]:
        """The curator's score of each document, 0..1, in the order given; equal texts go once.

        Raises ApiError: 502 unless every document has exactly one finite score in 0..1, else what
        the client raises.
        """
        texts = list(dict.fromkeys(documents))
        answer = await self._client.post("/rerank", {"query": query, "documents": texts})
        scores: dict[int, float] = {}
        try:
            for result in answer["results"]:
                score = result["relevance_score"]
                if type(score) not in (int, float) or not 0.0 <= score <= 1.0:
                    raise _rubbish("rerank", "a score that is not in 0..1")
                scores[result["index"]] = float(score)
        except (KeyError, TypeError):
            raise _rubbish("rerank", "something that is not a list of scores") from None
        if len(answer["results"]) != len(texts) or scores.keys() != set(range(len(texts))):
            raise _rubbish("rerank", "scores that do not match the documents one to one")
        by_text = {text: scores[place] for place, text in enumerate(texts)}
        return [by_text[document] for document in documents]

    async def ask(self) -> None:
        """Raise ApiError unless rerank answers now."""
        await self._client.get("/info")


def _rubbish(service: str, what: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"{service} answered {what}")
