"""The generate service: opens what it works with, and puts its routes together."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fastapi import FastAPI

from services.generate.answer.writers import Writers
from services.generate.cache.cache import AnswerCache
from services.generate.delivery.answering import answering
from services.generate.peers.desk import Desk
from services.generate.peers.librarian import Librarian
from services.generate.pipeline import Engine
from services.generate.policy.file import PolicyError
from services.generate.policy.lint import Finding
from services.generate.policy.schema import Policy
from services.generate.policy.servers import unexpected
from services.generate.routes import audit as audit_routes
from services.generate.routes import chat as chat_routes
from services.generate.routes import escalations as escalation_routes
from services.generate.routes import models as models_routes
from services.generate.routes import registry as registry_routes
from services.generate.routes import responses as responses_routes
from services.generate.routes import route as route_routes
from services.generate.routes import simulate as simulate_routes
from services.generate.routing.in_force import PolicyFile
from services.generate.tiers.configured import open_configured, served_tiers
from services.generate.trust.audit import START
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.ledger import Ledger
from services.generate.trust.model_states import ModelStates
from services.generate.trust.recorded import remember
from services.generate.verification.grounding import GroundingModel
from shared.client import ServiceClient
from shared.errors import ApiError, StartupError
from shared.limits import BODY_BYTES, Load
from shared.service import create_service
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

# What takes long, and conversations with images. A decision does all that an answer does but write.
_LIMITED = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/route"})
# In a body. Far more than a conversation and its tools may have, whose bounds hold once it is read.
_MOST_VALUES = 1_000_000


async def build(settings: Settings) -> FastAPI:
    """The app, with its writers open.

    Raises StartupError where one can't be, or the policy can't be used; then nothing stays open.
    """
    opened = AsyncExitStack()
    try:
        return await _build(settings, opened)
    except BaseException:
        await opened.aclose()
        raise


async def _build(settings: Settings, opened: AsyncExitStack) -> FastAPI:
    """opened: gets what is to be closed in the end, the last first."""
    grounding = GroundingModel(settings) if settings.grounding_url else None
    database = await asyncio.to_thread(GenerateDatabase.of, settings)
    opened.callback(database.close)
    states = ModelStates(database)
    policies = await _policies(settings, states)
    ledger = Ledger(database, audit=settings.audit == "required")
    opened.push_async_callback(asyncio.to_thread, ledger.close)
    await _tell_head(ledger, settings)
    configured = await asyncio.to_thread(open_configured, settings)
    engine = Engine(
        Desk(ServiceClient("retrieve", settings.url("retrieve"), settings=settings)),
        Librarian(ServiceClient("embed", settings.url("embed"), settings=settings)),
        Writers(settings, configured),
        policies,
        settings.default_corpora,
        _answers(settings),
        grounding,
    )
    opened.push_async_callback(engine.close)
    await asyncio.to_thread(remember, ledger, engine.history)

    for name, one in engine.writers.servers(await policies.current()).items():
        if one.configured:
            log.warning("configured_server", model=name, url=one.url, may_see=one.classes)

    async def probe() -> dict[str, Any]:
        await asyncio.to_thread(ledger.prove)
        for endpoint in configured.embedded:
            await endpoint.probe()
        policy = await policies.current()
        return {
            "tiers": _tiers(engine.writers, policy, settings),
            "servers": _servers(engine.writers, policy, settings),
            "policy": _policy_state(policy, policies.error, settings),
        }

    app = create_service(
        "generate",
        settings,
        probe=probe,
        close=opened.aclose,
        load=_load(settings),
        most_values=_MOST_VALUES,
    )
    answer = answering(engine, ledger, settings.audit_text)
    audit_routes.add_routes(app, ledger)
    escalation_routes.add_routes(app, ledger, policies)
    simulate_routes.add_routes(app, policies, engine.writers)
    registry_routes.add_routes(app, policies, states, engine.writers.serves)
    models_routes.add_routes(app, policies)
    route_routes.add_routes(app, engine)
    chat_routes.add_routes(app, answer, source_events=settings.source_events)
    responses_routes.add_routes(app, answer)
    return app


async def _policies(settings: Settings, states: ModelStates) -> PolicyFile:
    def admit(policy: Policy) -> list[Finding]:
        return unexpected(policy, served_tiers(settings)) or states.admit(policy)

    try:
        return await asyncio.to_thread(PolicyFile, settings.policy_file, admit=admit)
    except (PolicyError, ApiError) as error:
        raise StartupError(f"the policy can't be used: {error}") from None


async def _tell_head(ledger: Ledger, settings: Settings) -> None:
    """Log the head of the trail, where there is one: the log is kept outside of the database."""
    if settings.audit != "required":
        return
    try:
        head = await asyncio.to_thread(ledger.head)
    except ApiError as error:
        raise StartupError(f"the audit trail can't be read: {error.message}") from None
    log.info("audit_head", head=str(head or START))


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
    """What is taken at once of what takes long: answers and decisions, not lists and probes."""
    return Load(
        _LIMITED,
        settings.answers_at_once,
        settings.answers_waiting,
        longest_s=settings.answer_seconds,
        per_key=settings.answers_per_key,
        body_bytes=max(BODY_BYTES, 2 * settings.max_body_bytes),  # a key's half has room for one
    )


def _tiers(writers: Writers, policy: Policy, settings: Settings) -> dict[str, dict[str, str]]:
    """Who writes for each tier."""
    hidden = settings.keys_file is not None  # /ready asks for no key, and a name may be an address
    return {
        tier: {"model": one.model} | ({} if hidden else {"endpoint": one.name})
        for tier, one in writers.first(policy).items()
    }


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
