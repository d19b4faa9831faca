"""Routes of embed."""

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from services.embed.engine import Engine
from services.embed.models.base import EmbeddingModel, Vectors
from services.embed.models.onnx import OnnxModel
from services.embed.protocol import (
    MAX_CHARACTERS,
    Embedding,
    EmbeddingRequest,
    EmbeddingResponse,
    Truncated,
    Usage,
)
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
        embedded = await engine.embed(["is anyone there?"])
        if not np.isfinite(embedded.vectors).all():
            raise ApiError(503, "bad_model", "the model answers numbers that are not finite")
        return asdict(engine.info)

    app = create_service("embed", settings, probe=probe, close=engine.close)

    @app.post("/v1/embeddings", response_model_exclude_none=True)
    async def embeddings(request: EmbeddingRequest) -> EmbeddingResponse:
        """OpenAI's embeddings: a text or a list of texts in, unit vectors out."""
        _require_model(request.model)
        for place, text in enumerate(request.input):
            if len(text) > MAX_CHARACTERS:
                message = f"input.{place}: a text may have {MAX_CHARACTERS:,} characters at most"
                raise ApiError(413, "text_too_long", message, param=f"input.{place}")
        if request.dimensions is not None and request.dimensions > engine.info.dimension:
            message = f"dimensions: {engine.info.model} has {engine.info.dimension} of them"
            raise ApiError(400, "too_many_dimensions", message, param="dimensions")
        embedded = await engine.embed(request.input)
        vectors = _shorten(embedded.vectors, request.dimensions)
        cut = [
            Truncated(index=place, tokens_cut=tokens)
            for place, tokens in enumerate(embedded.cut)
            if tokens
        ]
        return EmbeddingResponse(
            data=[
                Embedding(index=place, embedding=_encode(vector, request.encoding_format))
                for place, vector in enumerate(vectors)
            ],
            model=engine.info.model,
            revision=engine.info.revision,
            usage=Usage(prompt_tokens=embedded.tokens, total_tokens=embedded.tokens),
            truncated=cut or None,
        )

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The model that is served, its revision, dimension and window."""
        return asdict(engine.info)

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


def _shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` numbers of each vector, at length 1 again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    short = vectors[:, :dimensions]
    norms = np.linalg.norm(short, axis=1, keepdims=True)
    shortened: Vectors = short / np.maximum(norms, np.finfo(np.float32).tiny)
    return shortened


def _encode(vector: Vectors, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers
