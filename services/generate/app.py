"""The generate service: routes that translate between the wire and the pipeline."""

import asyncio
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from services.generate.answer.pipeline import Engine, Query
from services.generate.answer.sources import Desk, Librarian
from services.generate.cache.cache import AnswerCache
from services.generate.delivery import chat
from services.generate.delivery.delivery import Delivery, unless_gone
from services.generate.delivery.wire import EVENTS, Wire
from services.generate.policy.file import PolicyError, PolicyFile
from services.generate.policy.lint import Finding
from services.generate.policy.models import State
from services.generate.policy.schema import AUTO, Policy
from services.generate.policy.servers import unexpected
from services.generate.policy.writers import Writers
from services.generate.protocol import (
    ChatCompletion,
    ChatRequest,
    ModelCard,
    ModelList,
    RouteAnswer,
)
from services.generate.reading.evidence import MIN_CONFIDENCE
from services.generate.routes import audit as audit_routes
from services.generate.routes import escalations as escalation_routes
from services.generate.routes import registry as registry_routes
from services.generate.routes import responses as responses_routes
from services.generate.routes import simulate as simulate_routes
from services.generate.tiers.registry import open_registry, served_tiers
from services.generate.trust.case import Case
from services.generate.trust.cases import remember
from services.generate.trust.ledger import Ledger
from services.generate.trust.model_states import ModelStates
from services.generate.verification.grounding import GroundingModel
from shared.client import ServiceClient
from shared.errors import ApiError, StartupError
from shared.limits import Load
from shared.service import create_service
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

_ANSWERS = frozenset({"/v1/chat/completions", "/v1/responses"})


async def build(settings: Settings) -> FastAPI:
    """The app, with its writers open.

    Raises StartupError where one can't be, or the policy can't be used.
    """
    grounding = GroundingModel(settings) if settings.grounding_url else None
    states = await asyncio.to_thread(ModelStates.open, settings)

    def admit(policy: Policy) -> list[Finding]:
        return unexpected(policy, served_tiers(settings)) or states.admit(policy)

    try:
        policies = await asyncio.to_thread(PolicyFile, settings.policy_file, admit=admit)
    except (PolicyError, ApiError) as error:
        states.close()
        raise StartupError(f"the policy can't be used: {error}") from None
    registry = await asyncio.to_thread(open_registry, settings, MIN_CONFIDENCE)
    engine = Engine(
        Desk(ServiceClient("retrieve", settings.url("retrieve"), settings=settings)),
        Librarian(ServiceClient("embed", settings.url("embed"), settings=settings)),
        Writers(settings, registry),
        policies,
        settings.default_corpora,
        _answers(settings),
        grounding,
    )
    ledger = await asyncio.to_thread(Ledger.open, settings)
    await asyncio.to_thread(remember, ledger, engine.history)

    for name, one in engine.writers.servers(await policies.current()).items():
        if one.configured:
            log.warning("configured_server", model=name, url=one.url, may_see=one.classes)

    async def probe() -> dict[str, Any]:
        await asyncio.to_thread(ledger.prove)
        for endpoint in registry.embedded:
            await endpoint.probe()
        policy = await policies.current()
        return {
            "tiers": {
                tier: {"endpoint": endpoint.name, "model": endpoint.model}
                for tier, endpoint in engine.writers.first(policy).items()
            },
            "servers": _servers(engine.writers, policy, settings),
            "policy": _policy_state(policy, policies.error, settings),
        }

    async def close() -> None:
        try:
            await engine.close()
        finally:
            await asyncio.to_thread(ledger.close)
            states.close()

    app = create_service("generate", settings, probe=probe, close=close, load=_load(settings))
    audit_routes.add_routes(app, ledger)
    escalation_routes.add_routes(app, ledger, policies)
    simulate_routes.add_routes(app, policies, engine.writers)
    registry_routes.add_routes(app, policies, states, engine.writers.serves)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """What `model` may name."""
        policy = await policies.current()
        live = [name for name, one in policy.models.items() if one.state is not State.RETIRED]
        return ModelList(data=[ModelCard(id=name) for name in (AUTO, *policy.tiers, *live)])

    @app.post("/v1/route")
    async def explain_route(body: ChatRequest, request: Request) -> RouteAnswer:
        """Which tier and model would answer the last user message, and why; nobody writes."""
        started = time.perf_counter()
        prepared = await unless_gone(request, engine.prepare(_query(body)))
        return chat.route_answer(prepared, (time.perf_counter() - started) * 1000)

    async def answer(body: ChatRequest, wire: Wire, request: Request) -> Response | BaseModel:
        started = time.perf_counter()
        body.refuse_what_is_not_done()
        query = _query(body)
        delivery = Delivery(
            engine,
            Case(
                ledger,
                settings.audit_text,
                model=body.model,
                streamed=body.stream,
                question=query.question,
            ),
            request,
            wire,
            streamed=body.stream,
            started=started,
        )
        return await delivery.answer(query)

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=EVENTS)
    async def chat_completions(body: ChatRequest, request: Request) -> Response | BaseModel:
        """Answer the last user message from the corpora, with checked citations."""
        envelope = chat.Envelope(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body.model)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        wished = body.refdesk.source_events
        source_events = settings.source_events if wished is None else wished
        wire = chat.ChatWire(envelope, include_usage, source_events)
        return await answer(body, wire, request)

    responses_routes.add_routes(app, answer)
    return app


def _query(body: ChatRequest) -> Query:
    question = body.question()
    options = body.refdesk
    return Query(
        question=question,
        corpora=options.corpora or (),
        top_k=options.top_k,
        passage_tokens=options.max_tokens,
        curate=options.curate,
        requested=None if body.model == AUTO else body.model,
        draft_tokens=body.max_completion_tokens or body.max_tokens,
        turns=body.turns,
        flagged=options.flagged,
        mark=options.data_class,
        tiers=None if options.tiers is None else frozenset(options.tiers),
        budget=options.budget_nano_dollars,
        chat=body.chat(),
        cache=options.cache,
    )


def _answers(settings: Settings) -> AnswerCache | None:
    if settings.answer_cache == "off":
        return None
    semantic = settings.answer_cache == "semantic"
    return AnswerCache(
        limit=settings.answer_cache_mb * 1024 * 1024,
        seconds=settings.answer_cache_seconds,
        similarity=settings.answer_cache_similarity if semantic else None,
    )


def _load(settings: Settings) -> Load:
    """What is taken at once of what takes long: answers, not decisions, lists and probes."""
    return Load(_ANSWERS, settings.answers_at_once, settings.answers_waiting)


def _servers(writers: Writers, policy: Policy, settings: Settings) -> dict[str, dict[str, Any]]:
    """The model servers, whether each is asked just now, and what data it may see."""
    if settings.keys_file is not None:  # /ready asks for no key
        return {}
    return {
        name: {"door": one.door, "classes": one.classes}
        for name, one in writers.servers(policy).items()
    }


def _policy_state(policy: Policy, error: str | None, settings: Settings) -> dict[str, str | None]:
    """Which policy holds, and what is wrong with the file that should hold instead."""
    if error is not None and settings.keys_file is not None:
        # /ready asks for no key, and the reason names files.
        error = "the file can't be used, the last good policy holds: see the log"
    return {"fingerprint": policy.fingerprint, "error": error}
