"""The embed service, which tells how alike texts are."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.vectors import embedder_of, read_vectors

# The vectors of two dozen sentences take some 100 ms; past this, the answer goes on without them.
_SIMILARITY_SECONDS = 5.0


@dataclass(frozen=True)
class Likeness:
    """How alike a question and some sentences are. question: its vector, float32 [d], of length 1;
    None where there was nothing to compare it with. cosines: of each sentence, in order."""

    question: NDArray[np.float32] | None
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class Embedded:
    """A text's vector. model: the embedder's, ``name@revision``. unit: float32 [d], of length 1."""

    model: str
    unit: NDArray[np.float32]


class Librarian:
    """The embed service, as a writer needs it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def likeness(self, question: str, sentences: Sequence[str]) -> Likeness:
        """How alike the question and each sentence are. Raises ApiError where embed is no help."""
        if not sentences:
            return Likeness(None, ())
        _, vectors = await self._vectors([question, *sentences])
        cosines = tuple(float(value) for value in vectors[1:] @ vectors[0])
        return Likeness(vectors[0].copy(), cosines)  # without the sentences' own

    async def units(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The texts' vectors, float32 [n, d], each of length 1. Raises ApiError where embed is no
        help."""
        return (await self._vectors(texts))[1]

    async def embed(self, text: str) -> Embedded:
        """The vector of a text. Raises ApiError where embed is no help."""
        answer, vectors = await self._vectors([text])
        return Embedded(embedder_of(answer), vectors[0])

    async def _vectors(self, texts: Sequence[str]) -> tuple[Any, NDArray[np.float32]]:
        """embed's answer and the texts' vectors in it, float32 [n, d], each of length 1."""
        patience = min(_SIMILARITY_SECONDS, current().deadline.remaining_ms() / 1000)
        try:
            async with asyncio.timeout(patience):
                answer = await self._client.post(
                    "/v1/embeddings", {"input": list(texts), "encoding_format": "base64"}
                )
        except TimeoutError:
            raise ApiError(504, "slow_upstream", "embed takes too long") from None
        vectors = read_vectors(answer, len(texts))
        return answer, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
