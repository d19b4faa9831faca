"""Routes of embed."""

import base64
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Response

from services.embed.engine import Engine
from services.embed.inputs import (
    prompt_of,
    require_dimensions,
    require_readable,
    require_whole,
    shorten,
)
from services.embed.models.base import EmbeddingModel, Vectors
from services.embed.models.onnx import OnnxModel
from services.embed.protocol import EmbeddingRequest, EmbeddingResponse
from services.embed.tei import ERROR_SHAPES, add_tei_routes, tei_info
from shared.envelope import json_response
from shared.errors import ApiError, StartupError
from shared.model_list import Model, ModelList
from shared.modelstore.store import ModelStore
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """Open the model and make the app. Raises StartupError where the model can't be served."""
    entry = ModelStore(settings.models_dir).require(settings.embed_model)
    model: EmbeddingModel
    if settings.embed_backend == "onnx":
        model = OnnxModel(
            entry.name,
            entry.path,
            built_dir=settings.built_dir,
            precision=settings.embed_precision,
            threads=settings.embed_threads,
        )
    else:
        # Imported only where it is asked for: the default install has no PyTorch.
        try:
            from services.embed.models.sentence_transformers import TorchModel
        except ImportError as error:
            raise StartupError(
                f"the backend sentence-transformers can't be loaded ({error}): install it with "
                "`pip install 'refdesk[torch]'`, or set REFDESK_EMBED_BACKEND=onnx"
            ) from None

        threads = settings.embed_threads
        model = TorchModel(entry.name, entry.path, entry.revision, threads=threads)
    return create_app(settings, Engine(model, settings))


def create_app(settings: Settings, engine: Engine) -> FastAPI:
    """The app over an engine."""

    async def probe() -> dict[str, Any]:
        await engine.prove()
        return asdict(engine.info)

    app = create_service(
        "embed", settings, probe=probe, close=engine.close, error_shapes=ERROR_SHAPES
    )
    add_tei_routes(app, engine)

    # The answer is written without the model's check of every number, which takes longer than
    # the rest of the route.
    @app.post("/v1/embeddings", response_model=EmbeddingResponse)
    async def embeddings(request: EmbeddingRequest) -> Response:
        """OpenAI's embeddings: a text or a list of texts in, unit vectors out."""
        _require_model(request.model)
        require_readable(request.input, "input")
        require_dimensions(request.dimensions, engine.info, 400)
        prompt = prompt_of(engine.info, request.prompt_name, request.input_type, 400)
        embedded = await engine.embed(request.input, prompt=prompt)
        if not request.truncate:
            require_whole(embedded.cut, engine.info, "input")
        vectors = shorten(embedded.vectors, request.dimensions)
        answer = {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": place,
                    "embedding": _encode(vector, request.encoding_format),
                }
                for place, vector in enumerate(vectors)
            ],
            "model": engine.info.model,
            "revision": engine.info.revision,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
        if any(embedded.cut):
            answer["truncated"] = [
                {"index": place, "tokens_cut": tokens}
                for place, tokens in enumerate(embedded.cut)
                if tokens
            ]
        return json_response(200, answer)

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The model that is served, its revision, dimension and window, and TEI's words for it."""
        return asdict(engine.info) | tei_info(engine.info, settings)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """OpenAI's list of models."""
        return ModelList(data=[Model(id=engine.info.model)])

    @app.get("/v1/models/{model}/tokenizer", response_class=Response)
    async def tokenizer(model: str) -> Response:
        """The model's tokenizer.json, for services that count tokens as the model does."""
        _require_model(model)
        return Response(engine.tokenizer_json(), media_type="application/json")

    def _require_model(name: str | None) -> None:
        if name is not None and name != engine.info.model:
            raise ApiError(
                404,
                "unknown_model",
                f"there is no model '{name}' here; there is: {engine.info.model}",
                param="model",
            )

    return app


def _encode(vector: Vectors, encoding: str) -> Vectors | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return vector
