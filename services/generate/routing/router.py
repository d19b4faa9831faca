"""Who answers, and why: a pure function of a request's features and the policy.

First every model that may not write is ruled out, then a tier is chosen: the one that was asked
for, else by the first rule that holds, else by the score. It writes with the models that are left
of it; where none is, the next dearer tier does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.policy.schema import NOBODY, Policy, Profile, Rule, State
from services.generate.policy.schema import Model as PolicyModel
from services.generate.routing.compliance import classify, permits
from services.generate.routing.request import RoutingFeatures
from services.generate.routing.rules import holds, tier_of, weighed

# What rules a model out, in the order in which it is looked at.
RETIRED, CANDIDATE, COMPLIANCE, TIERS = "retired", "candidate", "compliance", "allowed_tiers"
CAPABILITY, CONTEXT, BUDGET, DEADLINE = "capability", "context", "budget", "deadline"
# Names of decisions that no rule of the policy made.
REQUESTED, SCORED, NO_PASSAGES = "requested", "scored", "no_passages"


@dataclass(frozen=True)
class Reason:
    """What counted. weight: in a score; 1.0 for what decided alone, 0.0 for what is only told."""

    name: str
    weight: float
    seen: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}"


@dataclass(frozen=True)
class RuledOut:
    """A model that may not write this time. rule: one of the words above; why: for people."""

    model: str
    rule: str
    why: str


@dataclass(frozen=True)
class Step:
    """A tier with the models of it that may write, the first before its fallbacks.

    checks: the profile that their drafts are verified by.
    """

    tier: str
    chain: tuple[str, ...]
    checks: Profile


@dataclass(frozen=True)
class Decision:
    """Where a question goes.

    tier, model, version: who is asked first; None where nobody is. chain: that model and its
    fallbacks. escalation: the dearer tiers that may follow, as many as the policy has hops.
    declines: the sources don't say, so that no writer is asked. last_resort: the extractive model
    for when no draft can be shown, where it may see the data. refused: why a tier or model that was
    asked for may not write. checks: the profile of verification. data_class, source: see
    compliance.py. rule: the name of what decided. policy: its fingerprint.
    """

    tier: str | None
    model: str | None
    version: str
    chain: tuple[str, ...]
    escalation: tuple[Step, ...]
    declines: bool
    last_resort: str | None
    refused: RuledOut | None
    checks: Profile
    data_class: str
    source: str
    rule: str
    reasons: tuple[Reason, ...]
    ruled_out: tuple[RuledOut, ...]
    policy: str


@dataclass(frozen=True)
class _Choice:
    """What was chosen before the models are looked at. tier: None for nobody. checks: the profile
    in any tier, None for that of the tier that writes."""

    tier: str | None
    rule: str
    reasons: tuple[Reason, ...]
    checks: Profile | None = None


def route(features: RoutingFeatures, policy: Policy) -> Decision:
    """Decide. The same features and policy always give the same decision."""
    classified = classify(features, policy)
    out = _rule_out(features, policy, classified.data_class)
    told: tuple[Reason, ...] = ()
    if classified.source != "default":
        seen = f"{classified.data_class} ({classified.source})"
        told = (Reason("data_class", 0.0, seen),)
    undecided = Decision(
        tier=None,
        model=None,
        version="",
        chain=(),
        escalation=(),
        declines=False,
        last_resort=_last_resort(policy, classified.data_class),
        refused=None,
        checks=policy.checks,
        data_class=classified.data_class,
        source=classified.source,
        rule=REQUESTED,
        reasons=told,
        ruled_out=tuple(out.values()),
        policy=policy.fingerprint,
    )
    wanted = features.requested
    if wanted is not None:
        chain = (wanted,) if wanted in policy.models else policy.tiers[wanted].models
        if not (left := _left(chain, out)):
            against = [out[model] for model in chain]
            return replace(undecided, refused=_worst(wanted, against))
    if features.signals.documents == 0:
        nothing = Reason(NO_PASSAGES, 1.0, "the search found nothing")
        return replace(undecided, rule=NO_PASSAGES, declines=True, reasons=(*told, nothing))
    if wanted is not None:
        tier = policy.models[wanted].tier if wanted in policy.models else wanted
        asked = Reason(REQUESTED, 1.0, f"model {wanted}")
        return _decided(replace(undecided, reasons=(*told, asked)), policy, tier, left, out)

    choice = _choose(features, policy, classified.data_class)
    undecided = replace(
        undecided,
        rule=choice.rule,
        reasons=(*told, *choice.reasons),
        checks=choice.checks or policy.checks,
    )
    if choice.tier is None:
        return replace(undecided, declines=True)
    dearer = list(policy.tiers)[list(policy.tiers).index(choice.tier) :]
    for tier in dearer:
        if left := _left(policy.tiers[tier].models, out):
            return _decided(undecided, policy, tier, left, out, choice.checks)
        skipped = Reason("tier_skipped", 0.0, f"{tier}: none of its models may write")
        undecided = replace(undecided, reasons=(*undecided.reasons, skipped))
    return undecided


def _decided(
    undecided: Decision,
    policy: Policy,
    tier: str,
    chain: tuple[str, ...],
    out: Mapping[str, RuledOut],
    checks: Profile | None = None,
) -> Decision:
    def step(name: str, models: tuple[str, ...]) -> Step:
        return Step(name, models, checks or policy.tiers[name].checks or policy.checks)

    above = [
        step(name, _left(policy.tiers[name].models, out))
        for name in _above(list(policy.tiers), tier)
    ]
    first = chain[0]
    return replace(
        undecided,
        tier=tier,
        model=first,
        version=policy.models[first].version,
        chain=chain,
        escalation=tuple([one for one in above if one.chain][: policy.escalation.max_hops]),
        checks=step(tier, chain).checks,
    )


def _worst(wanted: str, against: Sequence[RuledOut]) -> RuledOut:
    """Why none of a tier may write: what is forbidden before what doesn't fit."""
    first = next((one for one in against if one.rule == COMPLIANCE), against[0])
    return replace(first, model=wanted)


def _above(tiers: Sequence[str], tier: str) -> Sequence[str]:
    return tiers[tiers.index(tier) + 1 :]


def _left(chain: Sequence[str], out: Mapping[str, RuledOut]) -> tuple[str, ...]:
    return tuple(model for model in chain if model not in out)


def _choose(features: RoutingFeatures, policy: Policy, data_class: str) -> _Choice:
    intent = Reason("intent", 0.0, str(features.question.intent))
    for rule in policy.rules:
        seen = holds(rule.when, features, data_class)
        if seen is not None:
            why = Reason(rule.name, 1.0, "; ".join((*seen, _evidence(features))))
            checks = rule.then.checks or ("strict" if rule.then.critical else None)
            return _Choice(_tier(rule), rule.name, (intent, why), checks)
    if policy.scored is None:  # the lint refuses such a policy
        return _Choice(None, "no_rule", (intent, Reason("no_rule", 1.0, "no rule holds")))
    parts = weighed(policy.scored, features)
    score = sum(weight for _, weight, _ in parts)
    tier = tier_of(policy.scored, score)
    reasons = [Reason(name, weight, f"{seen} = {weight:+.3f}") for name, weight, seen in parts]
    summed = Reason(SCORED, 1.0, f"score {score:.3f}: {tier}; {_evidence(features)}")
    return _Choice(tier, SCORED, (intent, *reasons, summed))


def _tier(rule: Rule) -> str | None:
    return None if rule.then.tier == NOBODY else rule.then.tier


def _evidence(features: RoutingFeatures) -> str:
    signals = features.signals
    return (
        f"confidence {features.confidence:.2f}, top score {signals.top_score:.2f}, margin "
        f"{signals.margin:.2f}, agreement {signals.agreement:.2f}, coverage {signals.coverage:.2f}"
    )


def _last_resort(policy: Policy, data_class: str) -> str | None:
    name = policy.last_resort
    if name is None or policy.models[name].state is State.RETIRED:
        return None
    return name if permits(policy, data_class, name) else None


def _rule_out(features: RoutingFeatures, policy: Policy, data_class: str) -> dict[str, RuledOut]:
    """The models that may not write, each with the first thing that speaks against it."""
    found = {}
    for name, model in policy.models.items():
        against = _against(features, policy, data_class, name, model)
        if against is not None:
            found[name] = RuledOut(name, *against)
    return found


def _against(
    features: RoutingFeatures, policy: Policy, data_class: str, name: str, model: PolicyModel
) -> tuple[str, str] | None:
    if model.state is State.RETIRED:
        return RETIRED, "it is retired" + (f"; name {model.instead}" if model.instead else "")
    if model.state is State.CANDIDATE and features.requested != name:
        return CANDIDATE, "it is a candidate, which writes only where a request names it"
    if not permits(policy, data_class, name):
        return COMPLIANCE, f"the policy does not allow it for data of class {data_class}"
    if features.tiers is not None and model.tier not in features.tiers:
        return TIERS, f"the caller does not allow tier {model.tier}"
    if model.capabilities is not None and (lacks := features.needs - {*model.capabilities}):
        return CAPABILITY, f"it lacks {', '.join(sorted(lacks))}"
    needed = features.prompt_tokens + features.draft_tokens
    if model.context is not None and needed > model.context:
        return CONTEXT, f"{needed} tokens may be needed, it has room for {model.context}"
    if (over := _over_budget(features, policy, model)) is not None:
        return BUDGET, over
    if model.latency_ms > features.remaining_ms:
        return (
            DEADLINE,
            f"it takes {model.latency_ms} ms, {features.remaining_ms:.0f} ms are left",
        )
    return None


def _over_budget(features: RoutingFeatures, policy: Policy, model: PolicyModel) -> str | None:
    limits = [
        one for one in (features.budget, policy.budgets.answer_nano_dollars) if one is not None
    ]
    if not limits or model.price is None:
        return None
    cost = features.prompt_tokens * model.price.input + features.draft_tokens * model.price.output
    if cost <= min(limits):
        return None
    return f"a draft may cost {cost} nano-dollars, the budget is {min(limits)}"
