"""Who answers, and why: a pure function of a request's features and the policy.

First every model that may not write is ruled out, then a tier is chosen: the one that was asked
for, or else what choose.py says. It writes with the models that are left of it; where none is, the
next dearer tier does, or for images the next cheaper one that can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from services.generate.policy.schema import Policy
from services.generate.prompting.chat import Capability
from services.generate.routing.choose import choose
from services.generate.routing.classify import classify
from services.generate.routing.decision import (
    FOR_ALL,
    FORBIDDEN,
    Decided,
    Decision,
    Escalated,
    Reason,
    RuledOut,
    Step,
    Told,
)
from services.generate.routing.eligible import rule_out
from services.generate.routing.features import RoutingFeatures


def route(features: RoutingFeatures, policy: Policy) -> Decision:
    """Decide. The same features and policy always give the same decision."""
    classified = classify(features, policy)
    out = rule_out(features, policy, classified.data_class)
    told: tuple[Reason, ...] = ()
    if classified.source != "default":
        seen = f"{classified.data_class} ({classified.source})"
        told = (Reason(Told.DATA_CLASS, 0.0, seen),)
    undecided = Decision(
        tier=None,
        model=None,
        version="",
        chain=(),
        escalation=(),
        declines=False,
        last_resort=_last_resort(policy, out),
        refused=None,
        checks=policy.checks,
        data_class=classified.data_class,
        source=classified.source,
        rule=Decided.REQUESTED,
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
    # Nobody looks at an image: that is said whatever the sources say.
    sees = Capability.VISION in features.needs
    if sees and wanted is None and not any(_left(one.models, out) for one in policy.tiers.values()):
        return undecided
    # Without passages a model can still call a tool, or answer from what one gave.
    if features.signals.documents == 0 and Capability.TOOLS not in features.needs:
        nothing = Reason(Decided.NO_PASSAGES, 1.0, "the search found nothing")
        return replace(undecided, rule=Decided.NO_PASSAGES, declines=True, reasons=(*told, nothing))
    if wanted is not None:
        tier = policy.models[wanted].tier if wanted in policy.models else wanted
        asked = Reason(Decided.REQUESTED, 1.0, f"model {wanted}")
        decided = _decided(replace(undecided, reasons=(*told, asked)), policy, tier, left, out)
        return decided if policy.escalation.requested else replace(decided, escalation=())

    choice = choose(features, policy, classified.data_class)
    undecided = replace(
        undecided,
        rule=choice.rule,
        reasons=(*told, *choice.reasons),
        checks=choice.checks or policy.checks,
    )
    if choice.tier is None:
        return replace(undecided, declines=True)
    order = list(policy.tiers)
    dearer = order[order.index(choice.tier) :]
    # What sees is seldom the dearest, and a cheaper one that does is better than nobody.
    cheaper = order[: order.index(choice.tier)][::-1] if sees else []
    for tier in (*dearer, *cheaper):
        if left := _left(policy.tiers[tier].models, out):
            escalated = _possible(choice.escalated, policy, out) if tier in dearer else None
            undecided = replace(undecided, escalated=escalated)
            return _decided(undecided, policy, tier, left, out, choice.checks)
        skipped = Reason(Told.TIER_SKIPPED, 0.0, f"{tier}: none of its models may write")
        undecided = replace(undecided, reasons=(*undecided.reasons, skipped))
    return undecided


def _decided(
    undecided: Decision,
    policy: Policy,
    tier: str,
    chain: tuple[str, ...],
    out: Mapping[str, RuledOut],
    checks: str | None = None,
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


def _possible(
    escalated: Escalated | None, policy: Policy, out: Mapping[str, RuledOut]
) -> Escalated | None:
    """An escalation, unless the cheaper tier might not have written anyway."""
    if escalated is None or not _left(policy.tiers[escalated.source].models, out):
        return None
    return escalated


def _worst(wanted: str, against: Sequence[RuledOut]) -> RuledOut:
    """Why none of a tier may write: what is forbidden before what doesn't fit."""
    forbidden = (one for one in against if one.rule in FORBIDDEN)
    return replace(next(forbidden, against[0]), model=wanted)


def _above(tiers: Sequence[str], tier: str) -> Sequence[str]:
    return tiers[tiers.index(tier) + 1 :]


def _left(chain: Sequence[str], out: Mapping[str, RuledOut]) -> tuple[str, ...]:
    return tuple(model for model in chain if model not in out)


def _last_resort(policy: Policy, out: Mapping[str, RuledOut]) -> str | None:
    against = out.get(policy.last_resort or "")
    return None if against is not None and against.rule in FOR_ALL else policy.last_resort
