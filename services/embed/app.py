"""Routes of embed."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response

from services.embed.answer import embeddings_answer, made
from services.embed.inputs import (
    prompt_of,
    refusing_long,
    require_dimensions,
    require_few_tokens,
    require_readable,
)
from services.embed.pool import ModelPool
from services.embed.protocol import EmbeddingRequest, EmbeddingResponse
from services.embed.tei import ERROR_SHAPES, add_tei_routes, tei_info
from shared.model_list import Model, ModelList
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """The app, its default model loaded. Raises StartupError where that can't be served."""
    pool = ModelPool(settings)
    await pool.start()
    return create_app(settings, pool)


def create_app(settings: Settings, pool: ModelPool) -> FastAPI:
    """The app over a pool of models."""

    async def probe() -> dict[str, Any]:
        return asdict(await pool.prove())

    app = create_service(
        "embed",
        settings,
        probe=probe,
        close=pool.close,
        while_connected=True,
        error_shapes=ERROR_SHAPES,
    )
    add_tei_routes(app, pool)

    # The answer is written without the model's check of every number, which takes longer than
    # the rest of the route.
    @app.post("/v1/embeddings", response_model=EmbeddingResponse)
    async def embeddings(request: EmbeddingRequest) -> Response:
        """OpenAI's embeddings: a text or a list of texts in, unit vectors out."""
        require_readable(request.input, _param_of)
        async with pool.use(request.model) as engine:
            info = engine.info
            require_dimensions(request.dimensions, info, 400)
            prompt = prompt_of(info, request.prompt_name, request.input_type, 400)
            if "tokens" in request.outputs:
                require_few_tokens(request.input, info, "input", prompt)
            with refusing_long(info, _param_of):
                readings = await engine.read(
                    request.input,
                    frozenset(request.outputs),
                    prompt=prompt,
                    whole=not request.truncate,
                )
        return await made(len(readings), lambda: embeddings_answer(readings, info, request))

    @app.get("/info")
    async def info(
        model: Annotated[str | None, Query(max_length=256)] = None,
    ) -> dict[str, Any]:
        """A model, its revision, dimension and window, and TEI's words for it."""
        about = await pool.info(model)
        return asdict(about) | tei_info(about, settings)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """OpenAI's list of models: those that a request can name, loaded or not."""
        return ModelList(data=[Model(id=name) for name in pool.names])

    @app.get("/v1/models/{model:path}/tokenizer", response_class=Response)
    async def tokenizer(model: str) -> Response:
        """The model's tokenizer.json, for services that count tokens as the model does."""
        async with pool.use(model) as engine:
            return Response(engine.tokenizer_json(), media_type="application/json")

    return app


def _param_of(place: int) -> str:
    return f"input.{place}"
