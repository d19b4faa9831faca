"""From a decision to an answer that may be shown: draft, verify, and escalate where that fails.

The chosen tier's models are asked in order until one drafts. A draft that fails a check, or a tier
whose models all fail, leads to the next tier, as often as the policy allows; then to the extractive
answer; where that declines, too, to an honest "not in the sources". The policy's compliance matrix
is asked again before each model, whatever the decision says.

In a profile that buffers, as `strict` does, nothing unverified gets out. In the others a draft may
be shown while it is written: then it is the answer, verification only says what it found, and
nothing else is tried.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.answer.drafting import Lane, draft_of, left_ms
from services.generate.answer.nearest import not_answered
from services.generate.answer.outcome import Ended, Happened, Hop, Outcome, Spending, Trace
from services.generate.answer.reading_aside import read_aside
from services.generate.policy.compliance import permits
from services.generate.policy.pricing import NO_LIMIT, Allowance
from services.generate.policy.schema import NOBODY, EscalationReason, Policy
from services.generate.prompting.chat import PLAIN, Chat
from services.generate.prompting.conversation import needs
from services.generate.prompting.masking import draw_salt
from services.generate.prompting.showing import Showing
from services.generate.reading.citations import annotated
from services.generate.reading.evidence import Evidence
from services.generate.reading.passages import Passage
from services.generate.routing.decision import Against, Decision, RuledOut, Step
from services.generate.routing.history import Verified
from services.generate.tiers.endpoint import Draft, DraftRequest, Endpoint
from services.generate.verification.form import finished, judge, shows_early, takes_text, whole
from services.generate.verification.jury import Jury
from services.generate.verification.verify import Verdict
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

# By what verification may have to do without.
_LEFT_OUT = {
    "similarity": Happened.SIMILARITY_LEFT_OUT,
    "grounding": Happened.GROUNDING_LEFT_OUT,
}


@dataclass(frozen=True)
class _Way:
    """What holds on the whole way of a question to its answer. show: who sees drafts as they are
    written. jury: who judges drafts that pass the checks of words. allowance: what it may cost."""

    decision: Decision
    policy: Policy
    writers: Mapping[str, Endpoint]
    request: DraftRequest
    show: Callable[[str], None] | None
    jury: Jury
    allowance: Allowance


@dataclass(frozen=True)
class _Unanswered:
    """Why a tier has no answer. checks: those that its draft failed. declined: who found no
    answer, None where that is not the reason."""

    reason: EscalationReason
    checks: tuple[str, ...] = ()
    declined: Endpoint | None = None


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
    jury: Jury,
    allowance: Allowance = NO_LIMIT,
    chat: Chat = PLAIN,
    show: Callable[[str], None] | None = None,
) -> Outcome:
    """The outcome for a decided question. writers: by the policy's names of models.

    spending: is told of every attempt, also of one that is cut off. allowance: what all of them may
    cost: a model whose longest draft would go beyond it is not asked. chat: what the question was
    asked in. show: gets the pieces of a draft that may be shown before it is verified; the outcome
    then has exactly their text.
    Raises ApiError: 504 when the deadline passes; where JSON or a tool call has to be the answer,
    502 `no_valid_format` if nobody wrote one that fits, 503 `model_unavailable` if nobody wrote at
    all, 422 `not_in_the_sources`; what the writer raised where that was after some of its draft was
    shown.
    """
    trace = Trace([*decision.reasons], spending)
    request = DraftRequest(
        question,
        passages,
        evidence,
        max_tokens,
        delimiter=secrets.token_hex(8),
        chat=chat,
        salt=draw_salt(),
    )
    seen_by = show if shows_early(chat) else None
    way = _Way(decision, policy, writers, request, seen_by, jury, allowance)
    if decision.declines:
        last = writers.get(policy.last_resort or "")
        return _declined(next(iter(policy.tiers)), last, way, trace)
    steps = []
    if decision.tier is not None:
        steps = [Step(decision.tier, decision.chain, decision.checks)]
    steps += decision.escalation
    if decision.escalated is not None:
        begun = decision.escalated
        trace.hops.append(Hop(begun.reason, begun.source, decision.tier))
    for place, step in enumerate(steps):
        onward = steps[place + 1] if place + 1 < len(steps) else None
        ended = await _ask_tier(step, way, trace, last=onward is None)
        if isinstance(ended, Outcome):
            return ended
        if ended.reason not in policy.escalation.reasons:
            onward = None
        if onward is not None and not _fits(onward, policy):
            trace.tell(Happened.HOP_SKIPPED, f"no time is left for tier {onward.tier}")
            onward = None
        if ended.declined is not None:
            if onward is None:  # with nobody behind it, a writer that finds no answer is believed
                return _declined(step.tier, ended.declined, way, trace)
            trace.came_to_nothing(f"{step.tier}:{ended.declined.name}")
            _remember(step, trace, passed=False)
        target = onward.tier if onward else None
        trace.hops.append(Hop(ended.reason, step.tier, target, ended.checks))
        if onward is None:
            break
    return await _last_resort(way, trace)


async def _ask_tier(step: Step, way: _Way, trace: Trace, *, last: bool) -> Outcome | _Unanswered:
    """The outcome of a tier, or why the answer has to go on from it. last: no other tier is behind
    it."""

    def worth_finishing(text: str) -> bool:
        return judge(Draft(text, "stop", ""), way.request, way.policy.profile(step.checks)).passed

    request = replace(way.request, worth_finishing=worth_finishing)
    hedge_ms = way.policy.tiers[step.tier].hedge_ms
    lanes = _lanes(step, way, trace, last=last)
    for first in lanes:
        started = time.perf_counter()
        try:
            lane, draft = await draft_of(
                first, lanes, request, trace, None if hedge_ms is None else hedge_ms / 1000
            )
        finally:
            trace.draft_ms += (time.perf_counter() - started) * 1000
        endpoint, showing = lane.endpoint, lane.showing
        if showing is not None and draft is not None and not draft.declined:
            showing.close()
        if showing is not None and draft is not None and showing.begun:
            return await _shown(step, endpoint, draft, showing.text, way, trace)
        if draft is None:
            continue
        if draft.declined:
            trace.tell(Happened.DECLINED, f"{endpoint.name} finds no answer in the passages")
            return _Unanswered(EscalationReason.LOW_CONFIDENCE, declined=endpoint)
        draft = whole(draft, way.request.chat)
        verdict = await _verify(draft, way, step.checks, trace)
        _remember(step, trace, passed=verdict.passed)
        if verdict.passed:
            return _answered(step.tier, endpoint, draft, verdict, way, trace)
        trace.failed(verdict.failures, f"{step.tier}:{endpoint.name}")
        checks = tuple(dict.fromkeys(failure.check.value for failure in verdict.failures))
        trace.tell(Happened.VERIFICATION_FAILED, ", ".join(checks))
        return _Unanswered(EscalationReason.VALIDATOR_FAILED, checks)
    return _Unanswered(EscalationReason.TIER_UNAVAILABLE)


def _lanes(step: Step, way: _Way, trace: Trace, *, last: bool) -> Iterator[Lane]:
    """The writers of a tier that may be asked, each looked at when its turn comes."""
    for name in step.chain:
        endpoint = _allowed(name, way, trace)
        if endpoint is None or any(endpoint is one for one in trace.asked):
            continue
        if _unable(name, way, trace) or _too_slow(name, way, trace) or _too_dear(name, way, trace):
            continue
        showing = None
        if way.show is not None and not way.policy.profile(step.checks).buffers:
            showing = Showing(way.show, way.request.secrets)
        followed = not last or name != step.chain[-1]
        yield Lane(name, way.policy.models[name], endpoint, step.tier, showing, followed)


async def _last_resort(way: _Way, trace: Trace) -> Outcome:
    """The extractive answer, or an honest refusal; where neither may be the answer, an error."""
    if not takes_text(way.request.chat):
        raise _no_valid_format(trace)
    name = way.decision.last_resort
    endpoint = _allowed(name, way, trace) if name is not None else None
    tier = way.decision.tier or next(iter(way.policy.tiers))
    if name is None or endpoint is None:
        trace.tell(Happened.DECLINED, "no other writer may see this data")
        return _declined(tier, None, way, trace)
    tier = way.policy.models[name].tier
    if any(endpoint is one for one in trace.asked):
        # What it could not show then it can't show now. Where it found no answer, that is the one.
        if not trace.failures and trace.escalated_from == f"{tier}:{endpoint.name}":
            trace.escalated_from = None
        return _declined(tier, endpoint, way, trace)
    meter = trace.spending.begin(name, way.policy.models[name], endpoint)
    extract = await endpoint.draft(way.request)  # free of charge, and no server to fail
    trace.spending.end(meter, Ended.DRAFTED)
    if extract.declined:
        trace.tell(Happened.DECLINED, "no sentence of the passages answers well enough")
        return _declined(tier, endpoint, way, trace)
    verdict = await _verify(extract, way, way.decision.checks, trace)
    if not verdict.passed:
        log.error("extract_failed_verification", checks=[f.check for f in verdict.failures])
        trace.tell(Happened.DECLINED, "the extractive answer failed verification, too")
        return _declined(tier, endpoint, way, trace)
    return _answered(tier, endpoint, extract, verdict, way, trace)


def _allowed(name: str, way: _Way, trace: Trace) -> Endpoint | None:
    """The writer of a model that may see this data; None for another, which is noted."""
    if permits(way.policy, way.decision.data_class, name):
        return way.writers[name]
    why = f"the policy does not allow it for data of class {way.decision.data_class}"
    log.error("forbidden_model_decided", model=name, data_class=way.decision.data_class)
    trace.ruled_out.append(RuledOut(name, Against.COMPLIANCE, why))
    return None


def _unable(name: str, way: _Way, trace: Trace) -> bool:
    """Whether a model can't take the chat, whatever the decision says; then it is noted."""
    if not (lacks := way.policy.models[name].lacks(needs(way.request.chat))):
        return False
    log.error("unfit_model_decided", model=name, lacks=sorted(lacks))
    trace.ruled_out.append(
        RuledOut(name, Against.CAPABILITY, f"it lacks {', '.join(sorted(lacks))}")
    )
    return True


def _too_slow(name: str, way: _Way, trace: Trace) -> bool:
    """Whether the time that is left is less than a model states that it takes; then it is noted."""
    takes, left = way.policy.models[name].latency_ms, left_ms()
    if not takes or takes <= left:
        return False
    why = f"it takes {takes} ms, {max(0.0, left):.0f} ms are left for it"
    trace.ruled_out.append(RuledOut(name, Against.DEADLINE, why))
    return True


def _too_dear(name: str, way: _Way, trace: Trace) -> bool:
    """Whether a model's longest draft may cost more than is left; then it is noted."""
    spent = trace.spending.bound(way.allowance)
    if (why := way.allowance.against(way.policy.models[name], spent)) is None:
        return False
    trace.ruled_out.append(RuledOut(name, Against.BUDGET, why))
    return True


def _fits(step: Step, policy: Policy) -> bool:
    """Whether one of the tier's models can draft before the reserve begins."""
    left = left_ms()
    return left > 0 and any(policy.models[name].latency_ms <= left for name in step.chain)


def _remember(step: Step, trace: Trace, *, passed: bool) -> None:
    if step.checks != "off":
        trace.verified.append(Verified(step.tier, passed))


async def _verify(draft: Draft, way: _Way, checks: str, trace: Trace) -> Verdict:
    started = time.perf_counter()
    profile = way.policy.profile(checks)
    passages = way.request.passages
    verdict = await read_aside(
        lambda: judge(draft, way.request, profile),
        # A draft's own characters are compared, not only read.
        sum(len(one.text) for one in passages) + 4 * len(draft.text),
    )
    if verdict.passed:
        rules, data_class = way.policy.grounding, way.decision.data_class
        heard = await way.jury.hear(verdict, passages, profile, rules, data_class)
        verdict = heard.verdict
        for part, why in heard.left_out.items():
            trace.degraded.append(part)
            trace.tell(_LEFT_OUT[part], why)
    trace.verify_ms += (time.perf_counter() - started) * 1000
    return verdict


async def _shown(
    step: Step, endpoint: Endpoint, draft: Draft, text: str, way: _Way, trace: Trace
) -> Outcome:
    """The outcome of a draft that was shown as it was written, whatever verification finds."""
    verdict = await _verify(replace(draft, text=text), way, step.checks, trace)
    _remember(step, trace, passed=verdict.passed)
    if not verdict.passed:
        trace.failed(verdict.failures, None)
        checks = dict.fromkeys(failure.check.value for failure in verdict.failures)
        trace.tell(Happened.SHOWN_UNVERIFIED, ", ".join(checks))
    numbers = {passage.n for passage in way.request.passages}
    answer = annotated(text, numbers, verdict.claims)
    return trace.outcome(
        answer,
        step.tier,
        endpoint,
        draft.model,
        answered=not draft.declined,
        shown=True,
        finish_reason=draft.finish_reason,
    )


def _answered(
    tier: str, endpoint: Endpoint, draft: Draft, verdict: Verdict, way: _Way, trace: Trace
) -> Outcome:
    if draft.tool_calls and draft.text:
        trace.tell(Happened.TEXT_LEFT_OUT, "what was written before the tool calls is not shown")
    elif not draft.tool_calls and way.request.chat.response_format is not None:
        trace.tell(Happened.FORM_VERIFIED, "what the JSON says is not held against the sources")
    return trace.outcome(
        finished(draft, verdict, way.request.chat),
        tier,
        endpoint,
        draft.model,
        answered=True,
        tool_calls=draft.tool_calls,
        finish_reason="tool_calls" if draft.tool_calls else draft.finish_reason,
    )


def _declined(tier: str, endpoint: Endpoint | None, way: _Way, trace: Trace) -> Outcome:
    if not takes_text(way.request.chat):
        raise ApiError(
            422,
            "not_in_the_sources",
            "the sources do not answer this question, which can't be said in the JSON or the tool "
            "call that was asked for",
        )
    nothing = not_answered(way.request.passages)
    model = endpoint.model if endpoint else NOBODY
    return trace.outcome(nothing, tier, endpoint, model, answered=False)


def _no_valid_format(trace: Trace) -> ApiError:
    wanted = "the JSON or the tool call that was asked for"
    if any(one.ended is Ended.DRAFTED for one in trace.spending.attempts):
        return ApiError(
            502,
            "no_valid_format",
            f"no model wrote {wanted}, and a text is not sent in its place; try again, with a "
            "larger max_tokens or a simpler schema",
        )
    message = f"no model answered that can write {wanted}; try again later"
    return ApiError(503, "model_unavailable", message, headers={"Retry-After": "5"})
