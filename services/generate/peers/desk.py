"""The retrieve service, where passages come from."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from services.generate.reading.passages import Passage, Signals
from shared.client import ServiceClient
from shared.errors import ApiError

_CANDIDATES = 100


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


def _rubbish(service: str, wanted: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"{service} answered something that is not {wanted}")
