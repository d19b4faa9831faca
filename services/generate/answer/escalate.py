"""From a decision to an answer that may be shown: draft, verify, and escalate where that fails.

The chosen tier's models are asked in order until one drafts. A draft that fails a check, or a tier
whose models all fail, leads to the next tier, as often as the policy allows; then to the extractive
answer; where that declines, too, to an honest "not in the sources". The policy's compliance matrix
is asked again before each model, whatever the decision says. Nothing unverified gets out.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.generate.answer.citations import Answer, compose
from services.generate.answer.evidence import Evidence
from services.generate.answer.passages import Passage
from services.generate.answer.sentences import split
from services.generate.answer.verify import PROFILES, Failure, Verdict, verify
from services.generate.policy.schema import NOBODY, Policy, Profile, Reason
from services.generate.routing.compliance import permits
from services.generate.routing.router import COMPLIANCE, Decision, RuledOut, Step
from services.generate.tiers.endpoint import Draft, DraftRequest, Endpoint
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

NOT_ANSWERED = "The sources do not answer this question."
# Kept back from a writer's time, so that the extractive answer still comes before the deadline.
_RESERVE_MS = 1000.0


@dataclass(frozen=True)
class Hop:
    """An escalation: the answer went on from a tier to another, None for the last resort.

    checks: those that the draft failed, where that was the reason.
    """

    reason: Reason
    source: str
    target: str | None
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """An answer and how it came about.

    tier, endpoint, model: who wrote what is shown; tier is the one that was asked first where
    nobody was. answered: False where the text only says that the sources do not answer.
    reasons: the decision's and what happened after it. passed, failures: of the draft of
    `escalated_from`, or of the answer itself where that is None. hops: the escalations, in order.
    ruled_out: models that would have been asked but for the policy. degraded: writers that were
    down. prompt_tokens, completion_tokens: of all language models that were asked. draft_ms,
    verify_ms.
    """

    answer: Answer
    tier: str
    endpoint: str
    model: str
    answered: bool
    reasons: tuple[str, ...]
    passed: bool
    failures: tuple[Failure, ...]
    escalated_from: str | None
    hops: tuple[Hop, ...]
    ruled_out: tuple[RuledOut, ...]
    degraded: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    draft_ms: float
    verify_ms: float


@dataclass
class _Trace:
    """What is gathered on the way to an outcome."""

    reasons: list[str]
    degraded: list[str] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    ruled_out: list[RuledOut] = field(default_factory=list)
    asked: list[Endpoint] = field(default_factory=list)
    failures: tuple[Failure, ...] = ()
    escalated_from: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    draft_ms: float = 0.0
    verify_ms: float = 0.0


@dataclass(frozen=True)
class _Way:
    """What holds on the whole way of a question to its answer. check: of a draft's text, by the
    profile of the step that it is drafted in."""

    decision: Decision
    policy: Policy
    writers: Mapping[str, Endpoint]
    request: DraftRequest
    check: Callable[[str, Profile], Verdict]


async def respond(
    question: str,
    passages: Sequence[Passage],
    evidence: Sequence[Evidence],
    decision: Decision,
    policy: Policy,
    writers: Mapping[str, Endpoint],
    *,
    max_tokens: int,
) -> Outcome:
    """The outcome for a decided question. writers: by the policy's names of models.

    Raises a 504 ApiError when the deadline passes.
    """
    trace = _Trace([str(reason) for reason in decision.reasons])
    delimiter = secrets.token_hex(8)

    def check(text: str, profile: Profile) -> Verdict:
        return verify(
            text, passages, question=question, secrets=(delimiter,), profile=PROFILES[profile]
        )

    request = DraftRequest(
        question,
        passages,
        evidence,
        max_tokens,
        delimiter,
        lambda text: check(text, decision.checks).passed,
    )
    way = _Way(decision, policy, writers, request, check)
    if decision.declines:
        return _declined(next(iter(policy.tiers)), writers.get(policy.last_resort or ""), trace)
    steps = []
    if decision.tier is not None:
        steps = [Step(decision.tier, decision.chain, decision.checks)]
    steps += decision.escalation
    for place, step in enumerate(steps):
        outcome, hop = await _try(step, way, trace)
        if outcome is not None:
            return outcome
        onward = steps[place + 1] if place + 1 < len(steps) else None
        if hop is not None and hop.reason not in policy.escalation.reasons:
            onward = None
        if onward is not None and not _fits(onward, policy):
            trace.reasons.append(f"hop_skipped: no time is left for tier {onward.tier}")
            onward = None
        if hop is not None:
            trace.hops.append(replace(hop, target=onward.tier if onward else None))
        if onward is None:
            break
    return await _last_resort(way, trace)


async def _try(step: Step, way: _Way, trace: _Trace) -> tuple[Outcome | None, Hop | None]:
    """The outcome of a tier, or None with why the answer has to go on from it."""
    request = replace(way.request, worth_finishing=lambda text: way.check(text, step.checks).passed)
    for name in step.chain:
        endpoint = _allowed(name, way, trace)
        if endpoint is None or any(endpoint is one for one in trace.asked):
            continue
        draft = await _draft(endpoint, request, trace)
        if draft is None:
            trace.escalated_from = trace.escalated_from or f"{step.tier}:{endpoint.name}"
            continue
        if draft.declined:
            trace.reasons.append(f"declined: {endpoint.name} finds no answer in the passages")
            if Reason.LOW_CONFIDENCE in way.policy.escalation.reasons and way.decision.escalation:
                trace.escalated_from = trace.escalated_from or f"{step.tier}:{endpoint.name}"
                return None, Hop(Reason.LOW_CONFIDENCE, step.tier, None)
            return _declined(step.tier, endpoint, trace), None
        if draft.finish_reason == "length":  # where nothing is left of it, verification says so
            draft = _without_torn_end(draft)
        verdict = _verify(draft, way, step.checks, trace)
        if verdict.passed:
            return _answered(step.tier, endpoint, draft, verdict, trace), None
        trace.failures = trace.failures or verdict.failures
        checks = tuple(dict.fromkeys(failure.check.value for failure in verdict.failures))
        trace.reasons.append(f"verification_failed: {', '.join(checks)}")
        trace.escalated_from = trace.escalated_from or f"{step.tier}:{endpoint.name}"
        return None, Hop(Reason.VALIDATOR_FAILED, step.tier, None, checks)
    return None, Hop(Reason.TIER_UNAVAILABLE, step.tier, None)


async def _last_resort(way: _Way, trace: _Trace) -> Outcome:
    """The extractive answer, or an honest refusal."""
    name = way.decision.last_resort
    endpoint = _allowed(name, way, trace) if name is not None else None
    tier = way.decision.tier or next(iter(way.policy.tiers))
    if name is None or endpoint is None:
        trace.reasons.append("declined: no other writer may see this data")
        return _declined(tier, None, trace)
    tier = way.policy.models[name].tier
    if any(endpoint is one for one in trace.asked):
        # It has just failed; what it could not show then it can't show now.
        if trace.escalated_from == f"{tier}:{endpoint.name}":
            trace.escalated_from = None
        return _declined(tier, endpoint, trace)
    extract = await endpoint.draft(way.request)
    if extract.declined:
        trace.reasons.append("declined: no sentence of the passages answers well enough")
        return _declined(tier, endpoint, trace)
    verdict = _verify(extract, way, way.decision.checks, trace)
    if not verdict.passed:
        log.error("extract_failed_verification", checks=[f.check for f in verdict.failures])
        trace.reasons.append("declined: the extractive answer failed verification, too")
        return _declined(tier, endpoint, trace)
    return _answered(tier, endpoint, extract, verdict, trace)


def _allowed(name: str, way: _Way, trace: _Trace) -> Endpoint | None:
    """The writer of a model that may see this data; None for another, which is noted."""
    if permits(way.policy, way.decision.data_class, name):
        return way.writers[name]
    why = f"the policy does not allow it for data of class {way.decision.data_class}"
    log.error("forbidden_model_decided", model=name, data_class=way.decision.data_class)
    trace.ruled_out.append(RuledOut(name, COMPLIANCE, why))
    return None


def _fits(step: Step, policy: Policy) -> bool:
    """Whether the tier's first model can draft before the reserve begins."""
    left = current().deadline.remaining_ms() - _RESERVE_MS
    return left > 0 and policy.models[step.chain[0]].latency_ms <= left


async def _draft(endpoint: Endpoint, request: DraftRequest, trace: _Trace) -> Draft | None:
    """The endpoint's draft, or None, with the reason in the trace, where it has none to give."""
    trace.asked.append(endpoint)
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


def _verify(draft: Draft, way: _Way, checks: Profile, trace: _Trace) -> Verdict:
    started = time.perf_counter()
    verdict = way.check(draft.text, checks)
    trace.verify_ms += (time.perf_counter() - started) * 1000
    return verdict


def _answered(
    tier: str, endpoint: Endpoint, draft: Draft, verdict: Verdict, trace: _Trace
) -> Outcome:
    return _outcome(compose(verdict.claims), tier, endpoint, draft.model, True, trace)


def _declined(tier: str, endpoint: Endpoint | None, trace: _Trace) -> Outcome:
    nothing = Answer(NOT_ANSWERED, (), ())
    model = endpoint.model if endpoint else NOBODY
    return _outcome(nothing, tier, endpoint, model, False, trace)


def _outcome(
    answer: Answer,
    tier: str,
    endpoint: Endpoint | None,
    model: str,
    answered: bool,
    trace: _Trace,
) -> Outcome:
    return Outcome(
        answer=answer,
        tier=tier,
        endpoint=endpoint.name if endpoint else NOBODY,
        model=model,
        answered=answered,
        reasons=tuple(trace.reasons),
        passed=not trace.failures,
        failures=trace.failures,
        escalated_from=trace.escalated_from,
        hops=tuple(trace.hops),
        ruled_out=tuple(trace.ruled_out),
        degraded=tuple(trace.degraded),
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        draft_ms=trace.draft_ms,
        verify_ms=trace.verify_ms,
    )
