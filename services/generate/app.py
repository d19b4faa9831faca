"""The generate service: routes that translate between the wire and the pipeline."""

import asyncio
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response

from services.generate.answer import stream
from services.generate.answer.delivery import Delivery, unless_gone
from services.generate.answer.evidence import MIN_CONFIDENCE
from services.generate.answer.pipeline import Engine, Query
from services.generate.answer.sources import Desk, Librarian
from services.generate.policy.file import PolicyError, PolicyFile
from services.generate.policy.schema import AUTO, Policy, State
from services.generate.policy.writers import Writers
from services.generate.protocol import (
    ChatCompletion,
    ChatRequest,
    ModelCard,
    ModelList,
    RouteAnswer,
)
from services.generate.routes import audit as audit_routes
from services.generate.routes import escalations as escalation_routes
from services.generate.tiers.registry import open_registry
from services.generate.trust.case import Case
from services.generate.trust.ledger import Ledger
from shared.client import ServiceClient
from shared.context import current
from shared.errors import StartupError
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """The app, with its writers open.

    Raises StartupError where one can't be, or the policy can't be used.
    """
    try:
        policies = PolicyFile(settings.policy_file)
    except PolicyError as error:
        raise StartupError(f"the policy can't be used: {error}") from None
    registry = await asyncio.to_thread(open_registry, settings, MIN_CONFIDENCE)
    engine = Engine(
        Desk(ServiceClient("retrieve", settings.url("retrieve"), settings=settings)),
        Librarian(ServiceClient("embed", settings.url("embed"), settings=settings)),
        Writers(settings, registry),
        policies,
        settings.default_corpora,
    )
    ledger = await asyncio.to_thread(Ledger.open, settings)

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
            "policy": _policy_state(policy, policies.error, settings),
        }

    async def close() -> None:
        await engine.close()
        await asyncio.to_thread(ledger.close)

    app = create_service("generate", settings, probe=probe, close=close)
    audit_routes.add_routes(app, ledger)
    escalation_routes.add_routes(app, ledger)

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
        return stream.route_answer(prepared, (time.perf_counter() - started) * 1000)

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(body: ChatRequest, request: Request) -> Response | ChatCompletion:
        """Answer the last user message from the corpora, with checked citations."""
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
            stream.Envelope(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body.model),
            streamed=body.stream,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
            started=started,
        )
        return await delivery.answer(query)

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
        requested=None if body.model == AUTO else body.model,
        draft_tokens=body.max_completion_tokens or body.max_tokens,
        turns=body.turns,
        needs=body.needs,
        mark=options.data_class,
        tiers=None if options.tiers is None else frozenset(options.tiers),
        budget=options.budget_nano_dollars,
    )


def _policy_state(policy: Policy, error: str | None, settings: Settings) -> dict[str, str | None]:
    """Which policy holds, and what is wrong with the file that should hold instead."""
    if error is not None and settings.keys_file is not None:
        # /ready asks for no key, and the reason names files.
        error = "the file can't be used, the last good policy holds: see the log"
    return {"fingerprint": policy.fingerprint, "error": error}
