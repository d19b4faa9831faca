"""The routes of text-embeddings-inference (TEI), so that its clients work unchanged."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Response

from services.embed.answer import dense_vectors, in_pieces, made
from services.embed.engine import DENSE, Engine, Token
from services.embed.inputs import (
    prompt_of,
    refusing_long,
    require_dimensions,
    require_few_tokens,
    require_readable,
    shorten,
)
from services.embed.models.base import Kind, ModelInfo, Reading
from services.embed.pool import ModelPool
from services.embed.protocol import MAX_INPUTS
from services.embed.tei_protocol import (
    EmbedRequest,
    InputsRequest,
    Parameters,
    SimilarityRequest,
    SparseValue,
    TextToken,
    TokenizeRequest,
)
from shared import __version__
from shared.envelope import ErrorShape, json_response
from shared.errors import ApiError
from shared.settings import Settings
from shared.tei import TEI_ERRORS, tei_error_body

# The root too: huggingface_hub's client posts to the bare URL of an endpoint.
ERROR_SHAPES: dict[str, ErrorShape] = dict.fromkeys(
    ("/", "/embed", "/embed_all", "/embed_sparse", "/similarity", "/tokenize"), tei_error_body
)

# Token lists are much larger than their texts: what one answer may hold.
_TOKENIZE_CHARACTERS = 200_000
# Headers have to stay small: clients refuse long ones.
_TRUNCATED_SHOWN = 100
_WINDOW = 512  # tokens, where a model's is not known
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def tei_info(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    """The fields of TEI's `/info`, as far as they mean something here.

    `max_concurrent_requests` is how many of the longest texts may wait.
    """
    return {
        "model_id": info.model,
        "model_sha": info.revision,
        "model_dtype": _DTYPES.get(info.precision, info.precision),
        "model_type": {"embedding": {}},
        "max_input_length": info.max_tokens,
        "max_batch_tokens": settings.embed_batch_tokens,
        "max_concurrent_requests": settings.embed_queue_tokens // (info.max_tokens or _WINDOW),
        "max_client_batch_size": MAX_INPUTS,
        "auto_truncate": False,
        "version": __version__,
    }


def add_tei_routes(app: FastAPI, pool: ModelPool) -> None:
    """Add TEI's routes to the app of embed. They serve the default model."""

    @app.post("/", response_model=list[list[float]], responses=TEI_ERRORS)
    @app.post("/embed", response_model=list[list[float]], responses=TEI_ERRORS)
    async def embed(request: EmbedRequest) -> Response:
        """A vector for each text."""
        started = time.perf_counter()
        async with pool.use() as engine:
            require_dimensions(request.dimensions, engine.info, 422)
            readings = await _read(engine, request.inputs, request)

        def answer() -> Response:
            normalize = request.normalize is not False
            vectors = shorten(dense_vectors(readings), request.dimensions, normalize=normalize)
            headers = _metadata(request.inputs, readings, started)
            return json_response(200, in_pieces(vectors), headers)

        return await made(len(readings), answer)

    @app.post("/embed_all", response_model=list[list[list[float]]], responses=TEI_ERRORS)
    async def embed_all(request: InputsRequest) -> Response:
        """A vector for each token of each text, special tokens included."""
        started = time.perf_counter()
        async with pool.use() as engine:
            prompt = prompt_of(engine.info, request.prompt_name, None, 422)
            require_few_tokens(request.inputs, engine.info, "inputs", prompt)
            readings = await _read(engine, request.inputs, request, frozenset({"tokens"}))

        def answer() -> Response:
            vectors = [
                in_pieces(one.token_vectors) for one in readings if one.token_vectors is not None
            ]
            return json_response(200, vectors, _metadata(request.inputs, readings, started))

        return await made(len(readings), answer)

    @app.post("/embed_sparse", response_model=list[list[SparseValue]], responses=TEI_ERRORS)
    async def embed_sparse(request: InputsRequest) -> Response:
        """The weights of each text's words, above 0, by token id; 424 from a model without."""
        started = time.perf_counter()
        async with pool.use() as engine:
            readings = await _read(engine, request.inputs, request, frozenset({"sparse"}))

        def answer() -> Response:
            words = (sorted((one.sparse or {}).items()) for one in readings)
            rows = ([{"index": index, "value": value} for index, value in one] for one in words)
            headers = _metadata(request.inputs, readings, started)
            return json_response(200, in_pieces(rows), headers)

        return await made(len(readings), answer)

    @app.post("/similarity", response_model=list[float], responses=TEI_ERRORS)
    async def similarity(request: SimilarityRequest) -> Response:
        """The cosine of a sentence with each of others."""
        started = time.perf_counter()
        texts = [request.inputs.source_sentence, *request.inputs.sentences]
        async with pool.use() as engine:
            parameters = request.parameters or Parameters()
            readings = await _read(engine, texts, parameters, param_of=_similarity_param)
        vectors = dense_vectors(readings)
        cosines = vectors[1:] @ vectors[0]
        return json_response(200, cosines, _metadata(texts, readings, started))

    @app.post("/tokenize", responses=TEI_ERRORS)
    async def tokenize(request: TokenizeRequest) -> list[list[TextToken]]:
        """The tokens of each text, however many they are."""
        characters = sum(map(len, request.inputs))
        if characters > _TOKENIZE_CHARACTERS:
            message = (
                f"inputs: /tokenize takes {_TOKENIZE_CHARACTERS:,} characters at a time, "
                f"not {characters:,}"
            )
            raise ApiError(413, "text_too_long", message, param="inputs")
        async with pool.use() as engine:
            prompt = prompt_of(engine.info, request.prompt_name, None, 422)
            texts = [prompt + text for text in request.inputs]
            try:
                tokens = await asyncio.to_thread(
                    engine.tokenize, texts, special_tokens=request.add_special_tokens
                )
            except ApiError as error:  # a model without tokenizer: what TEI calls the backend's
                raise ApiError(424, error.code, error.message) from None
        return [
            [_text_token(token, text) for token in row]
            for text, row in zip(texts, tokens, strict=True)
        ]


def _input_param(place: int) -> str:
    return f"inputs.{place}"


def _similarity_param(place: int) -> str:
    return f"inputs.sentences.{place - 1}" if place else "inputs.source_sentence"


async def _read(
    engine: Engine,
    texts: Sequence[str],
    parameters: Parameters,
    wanted: frozenset[Kind] = DENSE,
    *,
    param_of: Callable[[int], str] = _input_param,
) -> list[Reading]:
    """What the model makes of the texts, read as the parameters say."""
    require_readable(texts, param_of)
    info = engine.info
    with refusing_long(info, param_of):
        return await engine.read(
            texts,
            wanted,
            prompt=prompt_of(info, parameters.prompt_name, None, 422),
            keep="end" if parameters.truncation_direction == "left" else "start",
            whole=not parameters.truncate,
        )


def _text_token(token: Token, text: str) -> TextToken:
    if token.special:
        return TextToken(id=token.id, text=token.text, special=True, start=None, stop=None)
    part = text[token.start : token.end]
    return TextToken(id=token.id, text=part, special=False, start=token.start, stop=token.end)


def _metadata(texts: Sequence[str], readings: Sequence[Reading], started: float) -> dict[str, str]:
    """TEI's headers, times in milliseconds, and ours for what was cut (`place=tokens`)."""
    headers = {
        "x-compute-characters": str(sum(map(len, texts))),
        "x-compute-tokens": str(sum(one.tokens for one in readings)),
        "x-total-time": str(round((time.perf_counter() - started) * 1000)),
    }
    cut = [f"{place}={one.cut}" for place, one in enumerate(readings) if one.cut]
    if cut:
        headers["x-truncated-inputs"] = str(len(cut))
        headers["x-truncated"] = ", ".join(cut[:_TRUNCATED_SHOWN])
    return headers
