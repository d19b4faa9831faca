"""From a route to an answer that may be shown: draft, verify, and escalate where a check fails.

The hops are bounded: the chosen tier writes once; a draft that fails a check, or a writer that
fails, is replaced by the extractive answer; where that declines, the answer is an honest "not in
the sources". Nothing unverified gets out.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.generate.answer.citations import Answer, compose
from services.generate.answer.evidence import Evidence
from services.generate.answer.passages import Passage
from services.generate.answer.sentences import split
from services.generate.answer.verify import Failure, Verdict, verify
from services.generate.routing.policy import Tier
from services.generate.routing.router import Route
from services.generate.tiers.endpoint import Draft, DraftRequest, Endpoint
from services.generate.tiers.registry import Registry
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

NOT_ANSWERED = "The sources do not answer this question."
# Kept back from a writer's time, so that the extractive answer still comes before the deadline.
_RESERVE_MS = 1000.0


@dataclass(frozen=True)
class Outcome:
    """An answer and how it came about.

    tier, endpoint, model: who wrote what is shown; tier is the one that was asked first where
    nobody was. answered: False where the text only says that the sources do not answer.
    reasons: the route's and what happened after it. passed, failures: of the draft of
    `escalated_from`, or of the answer itself where that is None. degraded: writers that were down.
    prompt_tokens, completion_tokens: of all language models that were asked. draft_ms, verify_ms.
    """

    answer: Answer
    tier: Tier
    endpoint: str
    model: str
    answered: bool
    reasons: tuple[str, ...]
    passed: bool
    failures: tuple[Failure, ...]
    escalated_from: str | None
    degraded: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    draft_ms: float
    verify_ms: float


@dataclass
class _Trace:
    """What is gathered on the way to an outcome."""

    reasons: list[str]
    degraded: list[str]
    failures: tuple[Failure, ...] = ()
    escalated_from: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    draft_ms: float = 0.0
    verify_ms: float = 0.0


async def respond(
    question: str,
    passages: Sequence[Passage],
    evidence: Sequence[Evidence],
    route: Route,
    registry: Registry,
    *,
    max_tokens: int,
) -> Outcome:
    """The outcome for a routed question. Raises a 504 ApiError when the deadline passes."""
    trace = _Trace(list(route.reasons), [])
    delimiter = secrets.token_hex(8)
    request = DraftRequest(
        question,
        passages,
        evidence,
        max_tokens,
        delimiter,
        lambda text: verify(text, passages, question=question, secrets=(delimiter,)).passed,
    )
    if route.tier is None:
        return _declined(Tier.UTILITY, registry.extractive, trace)

    endpoint = registry.tiers[route.tier]
    draft = await _draft(endpoint, request, trace)
    if draft is not None:
        if draft.declined:
            trace.reasons.append(f"declined: {endpoint.name} finds no answer in the passages")
            return _declined(route.tier, endpoint, trace)
        if draft.finish_reason == "length":  # where nothing is left of it, verification says so
            draft = _without_torn_end(draft)
        verdict = _verify(draft, request, trace)
        trace.failures = verdict.failures
        if verdict.passed:
            return _answered(route.tier, endpoint, draft, verdict, trace)
        checks = ", ".join(dict.fromkeys(failure.check.value for failure in verdict.failures))
        trace.reasons.append(f"verification_failed: {checks}")
    if endpoint is registry.extractive:
        return _declined(route.tier, endpoint, trace)

    trace.escalated_from = f"{route.tier}:{endpoint.name}"
    extract = await registry.extractive.draft(request)
    if extract.declined:
        trace.reasons.append("declined: no sentence of the passages answers well enough")
        return _declined(Tier.UTILITY, registry.extractive, trace)
    verdict = _verify(extract, request, trace)
    if not verdict.passed:
        log.error("extract_failed_verification", checks=[f.check for f in verdict.failures])
        trace.reasons.append("declined: the extractive answer failed verification, too")
        return _declined(Tier.UTILITY, registry.extractive, trace)
    return _answered(Tier.UTILITY, registry.extractive, extract, verdict, trace)


async def _draft(endpoint: Endpoint, request: DraftRequest, trace: _Trace) -> Draft | None:
    """The endpoint's draft, or None, with the reason in the trace, where it has none to give."""
    started = time.perf_counter()
    patience = max(0.0, current().deadline.remaining_ms() - _RESERVE_MS) / 1000
    try:
        async with asyncio.timeout(patience):
            draft = await endpoint.draft(request)
    except TimeoutError:
        trace.degraded.append(endpoint.name)
        trace.reasons.append(f"out_of_time: {endpoint.name} did not finish before the deadline")
        return None
    except ApiError as error:
        trace.degraded.append(endpoint.name)
        trace.reasons.append(f"endpoint_failed: {endpoint.name}: {error.code}")
        log.warning("endpoint_failed", endpoint=endpoint.name, code=error.code)
        return None
    finally:
        trace.draft_ms += (time.perf_counter() - started) * 1000
    trace.prompt_tokens += draft.prompt_tokens
    trace.completion_tokens += draft.completion_tokens
    return draft


def _without_torn_end(draft: Draft) -> Draft:
    """A draft that was cut at its last token, without the sentence that was cut."""
    sentences = split(draft.text)
    if not sentences or sentences[-1].text.rstrip("]0123456789,[ ").endswith((".", "!", "?")):
        return draft
    end = sentences[-2].end if len(sentences) > 1 else 0
    return replace(draft, text=draft.text[:end])


def _verify(draft: Draft, request: DraftRequest, trace: _Trace) -> Verdict:
    started = time.perf_counter()
    verdict = verify(
        draft.text, request.passages, question=request.question, secrets=(request.delimiter,)
    )
    trace.verify_ms += (time.perf_counter() - started) * 1000
    return verdict


def _answered(
    tier: Tier, endpoint: Endpoint, draft: Draft, verdict: Verdict, trace: _Trace
) -> Outcome:
    return _outcome(compose(verdict.claims), tier, endpoint, draft.model, True, trace)


def _declined(tier: Tier, endpoint: Endpoint, trace: _Trace) -> Outcome:
    nothing = Answer(NOT_ANSWERED, (), ())
    return _outcome(nothing, tier, endpoint, endpoint.model, False, trace)


def _outcome(
    answer: Answer, tier: Tier, endpoint: Endpoint, model: str, answered: bool, trace: _Trace
) -> Outcome:
    return Outcome(
        answer=answer,
        tier=tier,
        endpoint=endpoint.name,
        model=model,
        answered=answered,
        reasons=tuple(trace.reasons),
        passed=not trace.failures,
        failures=trace.failures,
        escalated_from=trace.escalated_from,
        degraded=tuple(trace.degraded),
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        draft_ms=trace.draft_ms,
        verify_ms=trace.verify_ms,
    )
