"""From a decision to an answer that may be shown: draft, verify, and escalate where that fails.

The chosen tier's models are asked in order until one drafts. A draft that fails a check, or a tier
whose models all fail, leads to the next tier, as often as the policy allows; then to the extractive
answer; where that declines, too, to an honest "not in the sources". The policy's compliance matrix
is asked again before each model, whatever the decision says.

In the profile `strict` nothing unverified gets out. In the others a draft may be shown while it is
written: then it is the answer, verification only says what it found, and nothing else is tried.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from services.generate.answer.citations import Answer, annotated, compose
from services.generate.answer.evidence import Evidence
from services.generate.answer.outcome import Hop, Outcome, Spending, Trace
from services.generate.answer.passages import Passage
from services.generate.answer.sentences import split
from services.generate.answer.showing import Showing
from services.generate.answer.verify import PROFILES, Verdict, verify
from services.generate.policy.schema import NOBODY, Policy, Profile, Reason
from services.generate.routing.compliance import permits
from services.generate.routing.router import COMPLIANCE, Decision, RuledOut, Step
from services.generate.tiers.endpoint import PLAIN, Chat, Draft, DraftRequest, Endpoint
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

NOT_ANSWERED = "The sources do not answer this question."
# Kept back from a writer's time, so that the extractive answer still comes before the deadline.
_RESERVE_MS = 1000.0


@dataclass(frozen=True)
class _Way:
    """What holds on the whole way of a question to its answer. check: of a draft's text, by the
    profile of the step that it is drafted in. show: who sees drafts as they are written."""

    decision: Decision
    policy: Policy
    writers: Mapping[str, Endpoint]
    request: DraftRequest
    check: Callable[[str, Profile], Verdict]
    show: Callable[[str], None] | None


async def respond(
    question: str,
    passages: Sequence[Passage],
    evidence: Sequence[Evidence],
    decision: Decision,
    policy: Policy,
    writers: Mapping[str, Endpoint],
    *,
    max_tokens: int,
    spending: Spending,
    chat: Chat = PLAIN,
    show: Callable[[str], None] | None = None,
) -> Outcome:
    """The outcome for a decided question. writers: by the policy's names of models.

    spending: is told of every attempt, also of one that is cut off. chat: what the question was
    asked in. show: gets the pieces of a draft that may be shown before it is verified; the outcome
    then has exactly their text.
    Raises ApiError: 504 when the deadline passes; what the writer raised where that was after some
    of its draft was shown.
    """
    trace = Trace([str(reason) for reason in decision.reasons], spending)
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
        chat,
    )
    way = _Way(decision, policy, writers, request, check, show)
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


async def _try(step: Step, way: _Way, trace: Trace) -> tuple[Outcome | None, Hop | None]:
    """The outcome of a tier, or None with why the answer has to go on from it."""
    request = replace(way.request, worth_finishing=lambda text: way.check(text, step.checks).passed)
    for name in step.chain:
        endpoint = _allowed(name, way, trace)
        if endpoint is None or any(endpoint is one for one in trace.asked):
            continue
        showing = None
        if way.show is not None and step.checks != "strict":
            showing = Showing(way.show, (request.delimiter,))
        draft = await _draft(name, endpoint, request, way, trace, showing)
        if showing is not None and draft is not None and not draft.declined:
            showing.close()
        if showing is not None and draft is not None and showing.begun:
            return _shown(step, endpoint, draft, showing.text, way, trace), None
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


async def _last_resort(way: _Way, trace: Trace) -> Outcome:
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
    extract = await endpoint.draft(way.request)  # free of charge, and no server to fail
    if extract.declined:
        trace.reasons.append("declined: no sentence of the passages answers well enough")
        return _declined(tier, endpoint, trace)
    verdict = _verify(extract, way, way.decision.checks, trace)
    if not verdict.passed:
        log.error("extract_failed_verification", checks=[f.check for f in verdict.failures])
        trace.reasons.append("declined: the extractive answer failed verification, too")
        return _declined(tier, endpoint, trace)
    return _answered(tier, endpoint, extract, verdict, trace)


def _allowed(name: str, way: _Way, trace: Trace) -> Endpoint | None:
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


async def _draft(
    name: str,
    endpoint: Endpoint,
    request: DraftRequest,
    way: _Way,
    trace: Trace,
    showing: Showing | None,
) -> Draft | None:
    """The endpoint's draft, or None, with the reason in the trace, where it has none to give.

    Raises what the endpoint raises where some of its draft was shown by then.
    """
    trace.asked.append(endpoint)
    started = time.perf_counter()
    patience = max(0.0, current().deadline.remaining_ms() - _RESERVE_MS) / 1000
    meter = trace.spending.begin(name, way.policy.models[name], endpoint)
    show = showing.feed if showing is not None else None
    ended: Literal["drafted", "failed", "stopped"] = "stopped"
    try:
        async with asyncio.timeout(patience):
            draft = await endpoint.draft(replace(request, show=show, meter=meter))
        ended = "drafted"
    except TimeoutError:
        ended = "failed"
        trace.degraded.append(endpoint.name)
        trace.reasons.append(f"out_of_time: {endpoint.name} did not finish before the deadline")
        if showing is not None and showing.begun:
            raise deadline_exceeded() from None
        return None
    except ApiError as error:
        ended = "failed"
        trace.degraded.append(endpoint.name)
        trace.reasons.append(f"endpoint_failed: {endpoint.name}: {error.code}")
        log.warning("endpoint_failed", endpoint=endpoint.name, code=error.code)
        if showing is not None and showing.begun:
            raise
        return None
    finally:
        trace.spending.end(ended)
        trace.draft_ms += (time.perf_counter() - started) * 1000
    return draft


def _without_torn_end(draft: Draft) -> Draft:
    """A draft that was cut at its last token, without the sentence that was cut."""
    sentences = split(draft.text)
    if not sentences or sentences[-1].text.rstrip("]0123456789,[ ").endswith((".", "!", "?")):
        return draft
    end = sentences[-2].end if len(sentences) > 1 else 0
    return replace(draft, text=draft.text[:end])


def _verify(draft: Draft, way: _Way, checks: Profile, trace: Trace) -> Verdict:
    started = time.perf_counter()
    verdict = way.check(draft.text, checks)
    trace.verify_ms += (time.perf_counter() - started) * 1000
    return verdict


def _shown(
    step: Step, endpoint: Endpoint, draft: Draft, text: str, way: _Way, trace: Trace
) -> Outcome:
    """The outcome of a draft that was shown as it was written, whatever verification finds."""
    verdict = _verify(replace(draft, text=text), way, step.checks, trace)
    trace.failures = trace.failures or verdict.failures
    if not verdict.passed:
        checks = dict.fromkeys(failure.check.value for failure in verdict.failures)
        trace.reasons.append(f"shown_unverified: {', '.join(checks)}")
    answer = annotated(text, {passage.n for passage in way.request.passages})
    return trace.outcome(
        answer,
        step.tier,
        endpoint,
        draft.model,
        answered=True,
        shown=True,
        finish_reason=draft.finish_reason,
    )


def _answered(
    tier: str, endpoint: Endpoint, draft: Draft, verdict: Verdict, trace: Trace
) -> Outcome:
    return trace.outcome(compose(verdict.claims), tier, endpoint, draft.model, answered=True)


def _declined(tier: str, endpoint: Endpoint | None, trace: Trace) -> Outcome:
    nothing = Answer(NOT_ANSWERED, (), ())
    model = endpoint.model if endpoint else NOBODY
    return trace.outcome(nothing, tier, endpoint, model, answered=False)
