"""Routes of rerank."""

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from services.rerank.models.base import RerankModel
from services.rerank.models.late_interaction import LateInteraction
from services.rerank.protocol import (
    DocumentText,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Usage,
)
from shared.context import current
from shared.errors import ApiError
from shared.model_list import Model, ModelList
from shared.modelstore.store import ModelStore
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """Open the model and make the app. Raises StartupError where the model can't be served."""
    entry = ModelStore(settings.models_dir).require(settings.rerank_model)
    return create_app(settings, LateInteraction(entry.name, entry.path, settings))


def create_app(settings: Settings, model: RerankModel) -> FastAPI:
    """The app over a model."""

    async def probe() -> dict[str, Any]:
        scores = (await model.score("a cat", ["a kitten", "a tax return"])).scores
        if not scores[0] > scores[1]:
            raise ApiError(503, "bad_model", "the model can't tell a kitten from a tax return")
        return asdict(model.info)

    app = create_service("rerank", settings, probe=probe, close=model.close)

    @app.post("/rerank", response_model_exclude_none=True)
    @app.post("/v1/rerank", response_model_exclude_none=True)
    @app.post("/v2/rerank", response_model_exclude_none=True)
    async def rerank(request: RerankRequest) -> RerankResponse:
        """Judge every document against the query; the form of Cohere and Jina."""
        if request.model is not None and request.model != model.info.model:
            raise ApiError(
                404,
                "unknown_model",
                f"there is no model '{request.model}' here; there is: {model.info.model}",
                param="model",
            )
        scored = await model.score(request.query, request.documents)
        order = sorted(range(len(scored.scores)), key=lambda place: -scored.scores[place])
        return RerankResponse(
            id=current().request_id,
            model=model.info.model,
            results=[
                RerankResult(
                    index=place,
                    relevance_score=scored.scores[place],
                    document=DocumentText(text=request.documents[place])
                    if request.return_documents
                    else None,
                )
                for place in order[: request.top_n]
            ],
            usage=Usage(total_tokens=scored.tokens),
            meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        )

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The model that is served, its revision and window."""
        return asdict(model.info)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """OpenAI's list of models."""
        return ModelList(data=[Model(id=model.info.model)])

    return app
