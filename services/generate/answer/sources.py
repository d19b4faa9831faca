"""Where passages come from (the desk) and how alike sentences and question are (the librarian)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from services.generate.reading.passages import Passage, Signals
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger
from shared.vectors import embedder_of, read_vectors

log = get_logger(__name__)

_CANDIDATES = 100
# The vectors of two dozen sentences take some 100 ms; past this, the answer goes on without them.
_SIMILARITY_SECONDS = 5.0


@dataclass(frozen=True)
class Retrieval:
    """What the desk found. degraded: what it had to do without, in its own words."""

    passages: tuple[Passage, ...]
    signals: Signals
    degraded: tuple[str, ...]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _CorpusName(_Body):
    name: str


class _Corpora(_Body):
    corpora: list[_CorpusName]


class _Hit(_Body):
    id: str
    document_id: str
    corpus: str
    title: str | None = None
    url: str | None = None
    text: str
    score: float


class _Signals(_Body):
    top_score: float = 0.0
    margin: float = 0.0
    agreement: float = 0.0
    coverage: float = 0.0
    documents: int = 0


class _Found(_Body):
    hits: list[_Hit]
    signals: _Signals
    degraded: list[str] = []


class Desk:
    """The retrieve service, as a writer needs it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def corpora(self) -> list[str]:
        """The names of the corpora that the caller may read. Raises ApiError as the desk does."""
        answer = await self._client.get("/corpora")
        try:
            return [corpus.name for corpus in _Corpora.model_validate(answer).corpora]
        except ValidationError:
            raise _rubbish("retrieve", "a list of corpora") from None

    async def retrieve(
        self,
        question: str,
        corpora: Sequence[str],
        *,
        top_k: int,
        max_tokens: int,
        curate: bool | None,
    ) -> Retrieval:
        """The passages for a question, at most `top_k` and `max_tokens` tokens in all.

        Raises ApiError: the desk's own with its status, 502 for an answer that is none.
        """
        body = {
            "query": question,
            "corpora": list(corpora),
            "top_k": top_k,
            "candidates": max(_CANDIDATES, top_k),
            "max_tokens": max_tokens,
            "curate": curate,
        }
        answer = await self._client.post("/retrieve", body)
        try:
            found = _Found.model_validate(answer)
        except ValidationError:
            raise _rubbish("retrieve", "a list of hits with signals") from None
        passages = tuple(Passage(n, **vars(hit)) for n, hit in enumerate(found.hits, start=1))
        return Retrieval(passages, Signals(**vars(found.signals)), tuple(found.degraded))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


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


def _rubbish(service: str, wanted: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"{service} answered something that is not {wanted}")
