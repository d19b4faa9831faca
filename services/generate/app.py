"""The generate service: routes that translate between the wire and the pipeline."""

import asyncio
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from services.generate.answer import stream
from services.generate.answer.delivery import events, unless_gone
from services.generate.answer.evidence import MIN_CONFIDENCE, MIN_RELEVANCE
from services.generate.answer.pipeline import Engine, Query
from services.generate.answer.sources import Desk, Librarian
from services.generate.metrics import record
from services.generate.protocol import MODELS, ChatCompletion, ChatRequest, ModelCard, ModelList
from services.generate.routing.policy import Policy, Tier
from services.generate.tiers.registry import open_registry
from shared.client import ServiceClient
from shared.context import current
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """The app, with its writers open. Raises StartupError where one can't be."""
    policy = Policy(
        min_confidence=MIN_CONFIDENCE,
        min_relevance=MIN_RELEVANCE,
        strong_reasoning=bool(settings.reasoning_url),
    )
    registry = await asyncio.to_thread(open_registry, settings, policy)
    engine = Engine(
        Desk(ServiceClient("retrieve", settings.url("retrieve"), settings=settings)),
        Librarian(ServiceClient("embed", settings.url("embed"), settings=settings)),
        registry,
        policy,
        settings.default_corpora,
    )

    async def probe() -> dict[str, Any]:
        for endpoint in registry.embedded:
            await endpoint.probe()
        return {
            "tiers": {
                tier.value: {"endpoint": endpoint.name, "model": endpoint.model}
                for tier, endpoint in registry.tiers.items()
            }
        }

    app = create_service("generate", settings, probe=probe, close=engine.close)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """What `model` may name."""
        return ModelList(data=[ModelCard(id=name) for name in MODELS])

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(body: ChatRequest, request: Request) -> Response | ChatCompletion:
        """Answer the last user message from the corpora, with checked citations."""
        started = time.perf_counter()
        query = _query(body)
        prepared = await unless_gone(request, engine.prepare(query))
        envelope = stream.Envelope(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body.model)
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return StreamingResponse(
                events(engine, request, envelope, prepared, started, include_usage),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        outcome = await unless_gone(request, engine.finish(prepared))
        total = record(prepared, outcome, started)
        return stream.completion(envelope, prepared, outcome, total)

    return app


def _query(body: ChatRequest) -> Query:
    question = body.question()
    options = body.refdesk
    for corpus in options.corpora or ():
        current().principal.require_read(corpus)
    return Query(
        question=question,
        corpora=options.corpora or (),
        top_k=options.top_k,
        passage_tokens=options.max_tokens,
        curate=options.curate,
        requested=None if body.model == "auto" else Tier(body.model),
        draft_tokens=body.max_completion_tokens or body.max_tokens,
    )
