"""Routes of rerank."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

from fastapi import FastAPI

from services.rerank import answer
from services.rerank.backends import open_model
from services.rerank.models.base import RerankModel, Scored, TextTooLongError
from services.rerank.protocol import (
    AnyRerankRequest,
    Body,
    Rank,
    RankingRequest,
    RankingResponse,
    RerankRequest,
    RerankResponse,
    ScoreRequest,
    ScoreResponse,
    TeiRequest,
)
from services.rerank.tei import EITHER_ERRORS, ERROR_SHAPES, RERANK_PATHS
from services.rerank.token_vectors import add_token_vectors_route
from shared.batching import QUEUE_SHARES
from shared.context import current
from shared.encoder.tokenizer import Keep
from shared.errors import ApiError
from shared.model_list import Model, ModelList
from shared.service import create_service
from shared.settings import Settings
from shared.together import together

_WINDOW = 512  # tokens, where a model's is not known
_QUERIES_AT_ONCE = 16  # of one request; enough to fill batches, without filling the queue


async def build(settings: Settings) -> FastAPI:
    """Open the model and make the app. Raises StartupError where the model can't be served."""
    return create_app(settings, open_model(settings))


def create_app(settings: Settings, model: RerankModel) -> FastAPI:
    """The app over a model."""

    async def probe() -> dict[str, Any]:
        scores = (await model.score("a cat", ["a kitten", "a tax return"])).scores
        if not scores[0] > scores[1]:
            raise ApiError(503, "bad_model", "the model can't tell a kitten from a tax return")
        return asdict(model.info)

    app = create_service(
        "rerank",
        settings,
        probe=probe,
        close=model.close,
        while_connected=True,
        error_shapes=ERROR_SHAPES,
    )
    add_token_vectors_route(app, model)

    def require_served(request: Body) -> None:
        if request.model and request.model != model.info.model:
            raise ApiError(
                404,
                "unknown_model",
                f"there is no model '{request.model}' here; there is: {model.info.model}",
                param="model",
            )

    async def rerank(request: AnyRerankRequest) -> RerankResponse | list[Rank]:
        """Judge every document against the query.

        A body with `documents` is answered as Cohere, Jina and vLLM do, one with `texts` as
        text-embeddings-inference does.
        """
        if isinstance(request, RerankRequest):
            return await rerank_documents(request)
        return await rerank_texts(request)

    async def rerank_documents(request: RerankRequest) -> RerankResponse:
        require_served(request)
        scored = await model.score(request.query, request.documents, max_tokens=request.max_tokens)
        return answer.rerank_response(
            request, scored, request_id=current().request_id, model=model.info.model
        )

    async def rerank_texts(request: TeiRequest) -> list[Rank]:
        require_served(request)
        keep: Keep = "start" if request.truncation_direction == "Right" else "end"
        try:
            scored = await model.score(
                request.query, request.texts, keep=keep, whole=not request.truncate
            )
        except TextTooLongError as error:
            raise answer.text_too_long(error, query="query", documents="texts") from None
        return answer.tei_ranks(request, scored)

    for path in RERANK_PATHS:
        app.post(path, response_model_exclude_none=True, responses=EITHER_ERRORS)(rerank)

    @app.post("/score", response_model_exclude_none=True)
    @app.post("/v1/score", response_model_exclude_none=True)
    async def score(request: ScoreRequest) -> ScoreResponse:
        """Judge pairs of texts, one with each of many or one by one; the form of vLLM."""
        require_served(request)
        return answer.score_response(
            await score_pairs(request), request_id=current().request_id, model=model.info.model
        )

    async def score_pairs(request: ScoreRequest) -> list[Scored]:
        """Scores in the order of the pairs, those of neighbours with the same query together."""
        queries = request.text_1
        if len(queries) == 1:
            queries = queries * len(request.text_2)
        pairs = zip(queries, request.text_2, strict=True)
        parts = [
            (query, [document for _, document in part])
            for query, part in groupby(pairs, key=lambda pair: pair[0])
        ]
        limit = None if request.truncate_prompt_tokens == -1 else request.truncate_prompt_tokens
        # No more at once than the queue takes, or they would refuse each other. So many it takes
        # whatever their length, as of each a quarter of it counts at most.
        longest = 1 + max(len(documents) for _, documents in parts)
        window = model.info.max_tokens or _WINDOW
        fitting = settings.rerank_queue_tokens // (longest * window)
        at_once = max(QUEUE_SHARES, min(_QUERIES_AT_ONCE, fitting))
        scored: list[Scored] = []
        for start in range(0, len(parts), at_once):
            scored += await together(
                model.score(query, documents, max_tokens=limit)
                for query, documents in parts[start : start + at_once]
            )
        return scored

    @app.post("/v1/ranking", response_model_exclude_none=True)
    async def ranking(request: RankingRequest) -> RankingResponse:
        """Judge every passage against the query; the form of NVIDIA's NIM."""
        require_served(request)
        passages = [passage.text for passage in request.passages]
        whole = request.truncate == "NONE"
        try:
            scored = await model.score(request.query.text, passages, whole=whole)
        except TextTooLongError as error:
            raise answer.text_too_long(error, query="query.text", documents="passages") from None
        return answer.ranking_response(scored)

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The model that is served: its revision, window, backend and calibration."""
        return asdict(model.info)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """OpenAI's list of models."""
        return ModelList(data=[Model(id=model.info.model)])

    return app
