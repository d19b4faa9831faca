"""The curator at another server that speaks the rerank API of Cohere, Jina or TEI.

Scores: Cohere's and Jina's APIs give a relevance in 0..1, which is taken as it is; one outside of
that is refused, since nobody can tell what it means. `jina-logits` (llama.cpp) and TEI, which is
asked for its raw scores, give log-odds, and relevance(q, d) = 1 / (1 + exp(-score)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from services.rerank.models.base import BLANK_LOGIT, UNCALIBRATED, ModelInfo, Scored
from services.rerank.models.calibration import sigmoid
from shared.encoder.tokenizer import Keep
from shared.errors import ApiError, StartupError
from shared.settings import RerankRemoteApi, Settings
from shared.upstream import Lane, RefusedError, Upstream, batches_of

_NAME = "the rerank server"
# TEI takes 32 texts and 2 MB at a time unless it is told otherwise; Cohere 1,000 documents.
_TEI_DOCUMENTS = 32
_DOCUMENTS = 1000
_CHARACTERS = 400_000
# Calls side by side, of all requests together: enough to hide the network, few enough for a server
# that counts them.
_CALLS = 8


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    index: int = Field(ge=0)
    relevance_score: FiniteFloat


class _Usage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    total_tokens: int | None = Field(None, ge=0)


class _Results(BaseModel):
    """The answer of Cohere and Jina, as far as it is used."""

    model_config = ConfigDict(extra="ignore", strict=True)

    results: list[_Result]
    usage: _Usage | None = None

    @field_validator("usage", mode="wrap")
    @classmethod
    def _no_usage_that_is_none(cls, told: Any, read: ValidatorFunctionWrapHandler) -> _Usage | None:
        """What is said of tokens is no reason to refuse scores."""
        try:
            usage: _Usage | None = read(told)
        except ValidationError:
            return None
        return usage


class _Rank(BaseModel):
    """One of TEI's ranks."""

    model_config = ConfigDict(extra="ignore", strict=True)

    index: int = Field(ge=0)
    score: FiniteFloat


_RANKS = TypeAdapter(list[_Rank])


@dataclass(frozen=True)
class _Judged:
    """One call's scores, in the order of its documents, and the tokens that it says it read."""

    scores: list[float]
    tokens: int | None


class RemoteModel:
    """A RerankModel that asks another server. Raises StartupError where the URL is none.

    It is not asked before the first request, so that both may start in any order.
    """

    def __init__(self, settings: Settings) -> None:
        self._api: RerankRemoteApi = settings.rerank_remote_api
        url = settings.rerank_remote_url.rstrip("/")
        url = url.removesuffix("/v2" if self._api == "cohere" else "/v1")
        if not url:
            raise StartupError(
                "REFDESK_RERANK_BACKEND=remote needs the server's URL in REFDESK_RERANK_REMOTE_URL"
            )
        self._server = Upstream(_NAME, url, settings.rerank_remote_key)
        self._lane = Lane(at_once=_CALLS, queue_tokens=settings.rerank_queue_tokens)
        self._logits = self._api in ("tei", "jina-logits")
        self.info = ModelInfo(
            model=settings.rerank_model,
            revision="remote",
            max_tokens=None,
            precision="remote",
            backend="remote",
            calibration=UNCALIBRATED if self._logits else "as the remote server gives them",
        )

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep: Keep = "start",
        whole: bool = False,
    ) -> Scored:
        """See RerankModel. Equal documents are sent once, and blank ones, which score 0, never.

        Raises ApiError 422 `not_supported` for what the server's API can't say, and what Upstream
        raises. How many tokens each document has, and how many were cut, no server tells.
        """
        self._require_sayable(max_tokens, keep, whole=whole)
        texts = list(dict.fromkeys(text for text in documents if text.strip()))
        options = self._options(max_tokens, keep, whole=whole)
        most = _TEI_DOCUMENTS if self._api == "tei" else _DOCUMENTS
        batches = batches_of(texts, most, _CHARACTERS)
        judged = await self._lane.run(batches, partial(self._judge, query, options))
        told = dict(zip(texts, (score for one in judged for score in one.scores), strict=True))
        blank = BLANK_LOGIT if self._logits else 0.0
        raw = [told.get(text, blank) for text in documents]
        scores = sigmoid(np.array(raw)).tolist() if self._logits else raw
        counts = [one.tokens for one in judged if one.tokens is not None]
        return Scored(
            scores=[
                score if text.strip() else 0.0
                for score, text in zip(scores, documents, strict=True)
            ],
            raw_scores=raw,
            tokens=sum(counts) if len(counts) == len(judged) else None,
            document_tokens=None,
            truncated=[0] * len(documents),
            query_truncated=0,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    def _require_sayable(self, max_tokens: int | None, keep: Keep, *, whole: bool) -> None:
        tei = self._api == "tei"
        wishes = {
            "a limit of tokens for each document": max_tokens is not None and tei,
            "truncation on the left": keep == "end" and not tei,
            "refusing what is too long": whole and not tei,
        }
        for wish, refused in wishes.items():
            if refused:
                message = f"{_NAME} behind this model has no way to ask for {wish}; leave it out"
                raise ApiError(422, "not_supported", message)

    def _options(self, max_tokens: int | None, keep: Keep, *, whole: bool) -> dict[str, Any]:
        """What is sent beside query and documents."""
        if self._api == "tei":
            direction = "Right" if keep == "start" else "Left"
            return {"raw_scores": True, "truncate": not whole, "truncation_direction": direction}
        options: dict[str, Any] = {"model": self.info.model}
        if self._api != "cohere":
            options["return_documents"] = False
        if max_tokens is not None:
            options["max_tokens_per_doc"] = max_tokens
        return options

    async def _judge(
        self, query: str, options: Mapping[str, Any], documents: Sequence[str]
    ) -> _Judged:
        if self._api == "tei":
            return await self._judge_tei(query, options, documents)
        path = "/v2/rerank" if self._api == "cohere" else "/v1/rerank"
        body = {**options, "query": query, "documents": documents, "top_n": len(documents)}
        told = await self._server.post(path, body)
        try:
            answer = _Results.model_validate(told)
        except ValidationError as error:
            raise _bad_answer(error) from None
        scores = _by_place(
            [(result.index, result.relevance_score) for result in answer.results], len(documents)
        )
        if not self._logits and not all(0 <= score <= 1 for score in scores):
            raise ApiError(
                502,
                "bad_upstream",
                f"{_NAME} gives scores outside 0..1; if they are log-odds, as llama.cpp's are, set "
                "REFDESK_RERANK_REMOTE_API=jina-logits",
            )
        return _Judged(scores, answer.usage.total_tokens if answer.usage else None)

    async def _judge_tei(
        self, query: str, options: Mapping[str, Any], documents: Sequence[str]
    ) -> _Judged:
        try:
            told = await self._server.post(
                "/rerank", {**options, "query": query, "texts": documents}
            )
        except RefusedError as error:
            if not options["truncate"] and error.refused_with in (413, 422):
                raise ApiError(413, "text_too_long", error.message) from None
            raise
        try:
            ranks = _RANKS.validate_python(told)
        except ValidationError as error:
            raise _bad_answer(error) from None
        # What it read is only told in a header, and for all texts together with their queries.
        return _Judged(
            _by_place([(rank.index, rank.score) for rank in ranks], len(documents)), None
        )


def _by_place(told: list[tuple[int, float]], count: int) -> list[float]:
    """The scores in the order of the documents; ApiError 502 unless each has exactly one."""
    scores = dict(told)
    if len(told) != count or scores.keys() != set(range(count)):
        message = f"{_NAME} gave {len(told)} scores for {count} documents, or one of them twice"
        raise ApiError(502, "bad_upstream", message)
    return [scores[place] for place in range(count)]


def _bad_answer(error: ValidationError) -> ApiError:
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"])) or "its answer"
    return ApiError(
        502, "bad_upstream", f"{_NAME} gave something else than scores: {where}: {fault['msg']}"
    )
