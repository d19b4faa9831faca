"""Which tier a question is for, before it is asked which models may write. Pure functions.

The first rule that holds decides; where none does, the learned router, if the policy has one that
may; else the score. A rule that escalates does not decide: it lifts what the ones after it choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.generate.policy.schema import NOBODY, EscalationReason, Policy, Rule, Scored
from services.generate.routing.decision import Decided, Escalated, Reason, Told
from services.generate.routing.features import RoutingFeatures
from services.generate.routing.learned.model import Lean
from services.generate.routing.rules import holds, tier_of, weighed


@dataclass(frozen=True)
class Choice:
    """A tier. tier: None for nobody. rule: what chose it. checks: the profile in any tier, None for
    that of the tier that writes. escalated: why it is a dearer one than it would have been."""

    tier: str | None
    rule: str
    reasons: tuple[Reason, ...]
    checks: str | None = None
    escalated: Escalated | None = None


@dataclass(frozen=True)
class _Raising:
    """A rule that holds and escalates. seen: of its conditions."""

    rule: Rule
    reason: EscalationReason
    seen: str


def choose(features: RoutingFeatures, policy: Policy, data_class: str) -> Choice:
    """The choice for a question that names no writer."""
    raising: _Raising | None = None
    choice: Choice | None = None
    for rule in policy.rules:
        seen = holds(rule.when, features, data_class)
        if seen is None:
            continue
        words = "; ".join((*seen, _evidence(features)))
        if rule.then.escalate is None:
            choice = _ruled(rule, words)
            break
        raising = raising or _Raising(rule, EscalationReason(rule.then.escalate), words)
    choice = choice or _learned(features, policy) or _scored(features, policy)
    if raising is not None:
        choice = _raised(choice, raising, list(policy.tiers))
    told = [Reason(Told.INTENT, 0.0, str(features.question.intent)), *choice.reasons]
    return replace(choice, reasons=(*told, *_shadow(features, policy, choice)))


def _ruled(rule: Rule, seen: str) -> Choice:
    tier = None if rule.then.tier == NOBODY else rule.then.tier
    return Choice(tier, rule.name, (Reason(rule.name, 1.0, seen),), _checks(rule))


def _checks(rule: Rule) -> str | None:
    return rule.then.checks or ("strict" if rule.then.critical else None)


def _scored(features: RoutingFeatures, policy: Policy) -> Choice:
    if policy.scored is None:  # the lint refuses such a policy
        return Choice(None, Decided.NO_RULE, (Reason(Decided.NO_RULE, 1.0, "no rule holds"),))
    parts = weighed(policy.scored, features)
    score = sum(weight for _, weight, _ in parts)
    tier = tier_of(policy.scored, score)
    reasons = [Reason(name, weight, f"{seen} = {weight:+.3f}") for name, weight, seen in parts]
    reasons.append(Reason(Decided.SCORED, 1.0, f"score {score:.3f}: {tier}; {_evidence(features)}"))
    return _when_uncertain(
        Choice(tier, Decided.SCORED, tuple(reasons)), tier, score, policy.scored, list(policy.tiers)
    )


def _when_uncertain(
    choice: Choice, tier: str, score: float, scored: Scored, tiers: Sequence[str]
) -> Choice:
    """The dearer tier, where its bar is nearer than the margin."""
    near = tier_of(scored, score + scored.margin)
    if tiers.index(near) <= tiers.index(tier):
        return choice
    reason = EscalationReason.POLICY_UNCERTAIN
    seen = f"within {scored.margin:g} of the bar of {near}: from {tier} to {near}"
    return replace(
        choice,
        tier=near,
        reasons=(*choice.reasons, Reason(reason.value, 1.0, seen)),
        escalated=Escalated(reason, tier),
    )


def _raised(choice: Choice, raising: _Raising, tiers: Sequence[str]) -> Choice:
    """What a rule that escalates makes of a choice; a question for nobody stays one for nobody."""
    if choice.tier is None:
        return choice
    rule, reason = raising.rule, raising.reason
    place = tiers.index(choice.tier)
    least = place + 1 if rule.then.tier is None else tiers.index(rule.then.tier)
    goal = tiers[max(place, min(least, len(tiers) - 1))]
    checks = _checks(rule) or choice.checks
    if goal == choice.tier:
        told = Reason(rule.name, 0.0, f"{reason}: it is {goal} without that; {raising.seen}")
        return replace(choice, reasons=(*choice.reasons, told), checks=checks)
    told = Reason(rule.name, 1.0, f"{reason}: from {choice.tier} to {goal}; {raising.seen}")
    source = choice.escalated.source if choice.escalated else choice.tier
    return Choice(goal, rule.name, (*choice.reasons, told), checks, Escalated(reason, source))


def _learned(features: RoutingFeatures, policy: Policy) -> Choice | None:
    """The learned router's choice, where it may decide and does not decline."""
    if policy.learned is None or policy.learned.mode != "decide":
        return None
    tier = vote(features, policy)
    if tier is None or features.opinion is None:
        return None
    seen = f"probability of a gain {features.opinion.gain:.2f}: {tier}"
    return Choice(tier, Decided.LEARNED, (Reason(Decided.LEARNED, 1.0, seen),))


def _shadow(features: RoutingFeatures, policy: Policy, choice: Choice) -> tuple[Reason, ...]:
    """What the learned router would have done, or that it declined, where it did not decide."""
    if policy.learned is None or choice.rule == Decided.LEARNED:
        return ()
    if features.opinion is None:
        return (Reason(Decided.LEARNED, 0.0, "declined: it has no vector of the question"),)
    tier = vote(features, policy)
    says = "declined: unsure" if tier is None else f"would choose {tier}"
    seen = f"{says}, probability of a gain {features.opinion.gain:.2f}"
    return (Reason(Decided.LEARNED, 0.0, seen),)


def vote(features: RoutingFeatures, policy: Policy) -> str | None:
    """The tier that the learned router is for; None where it declines."""
    if policy.learned is None or features.opinion is None:
        return None
    return {
        Lean.WEAK: policy.learned.cheap,
        Lean.STRONG: policy.learned.strong,
        Lean.UNSURE: None,
    }[features.opinion.choice]


def _evidence(features: RoutingFeatures) -> str:
    signals = features.signals
    return (
        f"confidence {features.confidence:.2f}, top score {signals.top_score:.2f}, margin "
        f"{signals.margin:.2f}, agreement {signals.agreement:.2f}, coverage {signals.coverage:.2f}"
    )
