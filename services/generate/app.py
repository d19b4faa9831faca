"""The generate service: routes that translate between the wire and the pipeline."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Counter, Histogram

from services.generate.answer import stream
from services.generate.answer.escalate import Outcome
from services.generate.answer.evidence import MIN_CONFIDENCE, MIN_RELEVANCE
from services.generate.answer.pipeline import Engine, Prepared, Query
from services.generate.answer.sources import Desk, Librarian
from services.generate.protocol import MODELS, ChatCompletion, ChatRequest, ModelCard, ModelList
from services.generate.routing.policy import Policy, Tier
from services.generate.tiers.registry import open_registry
from shared.client import ServiceClient
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.service import create_service
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")

# How often a stream shows that it lives, and how soon a caller's leaving is noticed.
_KEEP_ALIVE_SECONDS = 2.0
# A stream ends with an error event of its own just before the deadline would cut it off.
_CLOSING_SECONDS = 0.25

ANSWERS = Counter(
    "refdesk_generate_answers_total", "Answers by who wrote them", ["endpoint", "answered"]
)
ESCALATIONS = Counter(
    "refdesk_generate_escalations_total", "Drafts that were not shown, by failed check", ["check"]
)
DEGRADED = Counter("refdesk_generate_degraded_total", "Answers that did without a part", ["part"])
STAGES = Histogram("refdesk_generate_stage_seconds", "Time of each stage", ["stage"])


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
        prepared = await _unless_gone(request, engine.prepare(query))
        envelope = stream.Envelope(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body.model)
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _events(engine, request, envelope, prepared, started, include_usage)
            return StreamingResponse(
                events,
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        outcome = await _unless_gone(request, engine.finish(prepared))
        total = _record(prepared, outcome, started)
        return stream.completion(envelope, prepared, outcome, total)

    return app


def _query(body: ChatRequest) -> Query:
    question = body.question()
    options = body.refdesk
    principal = current().principal
    for corpus in options.corpora or ():
        principal.require_read(corpus)
    return Query(
        question=question,
        corpora=options.corpora or (),
        top_k=options.top_k,
        passage_tokens=options.max_tokens,
        curate=options.curate,
        requested=None if body.model == "auto" else Tier(body.model),
        draft_tokens=body.max_completion_tokens or body.max_tokens,
    )


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work, but stop it when the caller hangs up. Raises what the work raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_KEEP_ALIVE_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise _gone()
        return task.result()
    finally:
        _drop(task)


def _drop(task: "asyncio.Future[Any]") -> None:
    """Stop work that nobody waits for; what it raises on its way out interests nobody either."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _gone() -> ApiError:
    return ApiError(499, "client_gone", "the caller hung up before the answer was ready")


async def _events(
    engine: Engine,
    request: Request,
    envelope: stream.Envelope,
    prepared: Prepared,
    started: float,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    """The events of a stream. From the first on, an error is an event, too."""
    yield stream.opening(envelope)
    task = asyncio.ensure_future(engine.finish(prepared))
    try:
        while not task.done():
            left = current().deadline.remaining_ms() / 1000 - _CLOSING_SECONDS
            if left <= 0:
                raise deadline_exceeded()
            await asyncio.wait({task}, timeout=min(left, _KEEP_ALIVE_SECONDS))
            if not task.done():
                if await request.is_disconnected():
                    return
                yield stream.KEEP_ALIVE
        outcome = task.result()
        total = _record(prepared, outcome, started)
        for event in stream.rest(envelope, prepared, outcome, total, include_usage=include_usage):
            yield event
    except ApiError as error:
        yield stream.failure(error.body())
    except Exception as error:
        log.exception("unexpected_error", error=type(error).__name__)
        hidden = ApiError(
            500,
            "internal_error",
            "refdesk failed on this request; its log has the cause under id "
            f"{current().request_id}",
        )
        yield stream.failure(hidden.body())
    finally:
        _drop(task)


def _record(prepared: Prepared, outcome: Outcome, started: float) -> float:
    """Count the answer; returns the milliseconds since `started`."""
    total = time.perf_counter() - started
    ANSWERS.labels(outcome.endpoint, str(outcome.answered).lower()).inc()
    for check in {failure.check for failure in outcome.failures}:
        ESCALATIONS.labels(check.value).inc()
    for part in {*prepared.degraded, *outcome.degraded}:
        DEGRADED.labels(part).inc()
    stages = {
        "retrieve": prepared.retrieve_ms,
        "route": prepared.route_ms,
        "draft": outcome.draft_ms,
        "verify": outcome.verify_ms,
    }
    for stage, milliseconds in stages.items():
        STAGES.labels(stage).observe(milliseconds / 1000)
    log.info(
        "answered",
        endpoint=outcome.endpoint,
        answered=outcome.answered,
        escalated_from=outcome.escalated_from,
        passages=len(prepared.passages),
        ms=round(total * 1000, 1),
    )
    return total * 1000
