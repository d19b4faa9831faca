"""The routes of text-embeddings-inference (TEI), so that its clients work unchanged."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from services.embed.engine import Embedded, Engine, Token, TokenEmbedded
from services.embed.inputs import (
    prompt_of,
    require_dimensions,
    require_readable,
    require_whole,
    shorten,
)
from services.embed.models.base import ModelInfo
from services.embed.protocol import MAX_INPUTS
from services.embed.tei_protocol import (
    EmbedRequest,
    InputsRequest,
    SimilarityRequest,
    TextToken,
    TokenizeRequest,
)
from shared import __version__
from shared.envelope import ErrorShape, json_response
from shared.errors import ApiError
from shared.settings import Settings
from shared.tei import tei_error_body

# The root too: huggingface_hub's client posts to the bare URL of an endpoint.
ERROR_SHAPES: dict[str, ErrorShape] = dict.fromkeys(
    ("/", "/embed", "/embed_all", "/embed_sparse", "/similarity", "/tokenize"), tei_error_body
)

# Token vectors and token lists are much larger than their texts: what one answer may hold.
_TOKEN_VECTORS = 8192
_TOKENIZE_CHARACTERS = 200_000
# Headers have to stay small: clients refuse long ones.
_TRUNCATED_SHOWN = 100


def tei_info(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    """The fields of TEI's `/info`, as far as they mean something here."""
    return {
        "model_id": info.model,
        "model_sha": info.revision,
        "model_dtype": {"fp32": "float32"}.get(info.precision, info.precision),
        "model_type": {"embedding": {}},
        "max_input_length": info.max_tokens,
        "max_batch_tokens": settings.embed_batch_tokens,
        "max_concurrent_requests": settings.embed_queue,
        "max_client_batch_size": MAX_INPUTS,
        "auto_truncate": False,
        "version": __version__,
    }


def add_tei_routes(app: FastAPI, engine: Engine) -> None:
    """Add TEI's routes to the app of embed."""

    @app.post("/", response_model=list[list[float]])
    @app.post("/embed", response_model=list[list[float]])
    async def embed(request: EmbedRequest) -> Response:
        """A vector for each text."""
        started = time.perf_counter()
        require_readable(request.inputs, "inputs")
        require_dimensions(request.dimensions, engine.info, 422)
        prompt = prompt_of(engine.info, request.prompt_name, None, 422)
        embedded = await engine.embed(request.inputs, prompt=prompt)
        if not request.truncate:
            require_whole(embedded.cut, engine.info, "inputs")
        normalize = request.normalize is not False
        vectors = shorten(embedded.vectors, request.dimensions, normalize=normalize)
        return json_response(200, vectors, _metadata(request.inputs, embedded, started))

    @app.post("/embed_all", response_model=list[list[list[float]]])
    async def embed_all(request: InputsRequest) -> Response:
        """A vector for each token of each text, special tokens included."""
        started = time.perf_counter()
        most = max(1, _TOKEN_VECTORS // engine.info.max_tokens)
        if len(request.inputs) > most:
            message = f"inputs: /embed_all takes {most} texts at a time, not {len(request.inputs)}"
            raise ApiError(413, "text_too_long", message, param="inputs")
        require_readable(request.inputs, "inputs")
        prompt = prompt_of(engine.info, request.prompt_name, None, 422)
        embedded = await engine.token_vectors(request.inputs, prompt=prompt)
        if not request.truncate:
            require_whole(embedded.cut, engine.info, "inputs")
        vectors = [np.ascontiguousarray(rows) for rows in embedded.vectors]
        return json_response(200, vectors, _metadata(request.inputs, embedded, started))

    @app.post("/embed_sparse", response_model=list[list[dict[str, float]]])
    async def embed_sparse(_: InputsRequest) -> Response:
        """Refused: no model that is served here makes sparse vectors."""
        message = f"{engine.info.model} makes no sparse vectors; ask /embed for dense ones"
        raise ApiError(424, "no_sparse_vectors", message)

    @app.post("/similarity", response_model=list[float])
    async def similarity(request: SimilarityRequest) -> Response:
        """The cosine of a sentence with each of others."""
        started = time.perf_counter()
        source, sentences = request.inputs.source_sentence, request.inputs.sentences
        require_readable([source], "inputs.source_sentence")
        require_readable(sentences, "inputs.sentences")
        parameters = request.parameters
        name = parameters.prompt_name if parameters else None
        prompt = prompt_of(engine.info, name, None, 422)
        texts = [source, *sentences]
        embedded = await engine.embed(texts, prompt=prompt)
        if not (parameters and parameters.truncate):
            require_whole(embedded.cut[:1], engine.info, "inputs.source_sentence")
            require_whole(embedded.cut[1:], engine.info, "inputs.sentences")
        cosines = embedded.vectors[1:] @ embedded.vectors[0]
        return json_response(200, cosines, _metadata(texts, embedded, started))

    @app.post("/tokenize")
    async def tokenize(request: TokenizeRequest) -> list[list[TextToken]]:
        """The tokens of each text, however many they are."""
        characters = sum(map(len, request.inputs))
        if characters > _TOKENIZE_CHARACTERS:
            message = (
                f"inputs: /tokenize takes {_TOKENIZE_CHARACTERS:,} characters at a time, "
                f"not {characters:,}"
            )
            raise ApiError(413, "text_too_long", message, param="inputs")
        prompt = prompt_of(engine.info, request.prompt_name, None, 422)
        texts = [prompt + text for text in request.inputs]
        tokens = await asyncio.to_thread(
            engine.tokenize, texts, special_tokens=request.add_special_tokens
        )
        return [
            [_text_token(token, text) for token in row]
            for text, row in zip(texts, tokens, strict=True)
        ]


def _text_token(token: Token, text: str) -> TextToken:
    if token.special:
        return TextToken(id=token.id, text=token.text, special=True, start=None, stop=None)
    part = text[token.start : token.end]
    return TextToken(id=token.id, text=part, special=False, start=token.start, stop=token.end)


def _metadata(
    texts: Sequence[str], embedded: Embedded | TokenEmbedded, started: float
) -> dict[str, str]:
    """TEI's headers, times in milliseconds, and ours for what was cut (`place=tokens`)."""
    headers = {
        "x-compute-characters": str(sum(map(len, texts))),
        "x-compute-tokens": str(embedded.tokens),
        "x-total-time": str(round((time.perf_counter() - started) * 1000)),
    }
    cut = [f"{place}={tokens}" for place, tokens in enumerate(embedded.cut) if tokens]
    if cut:
        headers["x-truncated-inputs"] = str(len(cut))
        headers["x-truncated"] = ", ".join(cut[:_TRUNCATED_SHOWN])
    return headers
