"""Which models may not write this time, and why. Pure functions."""

from services.generate.policy.compliance import permits
from services.generate.policy.models import Model, State
from services.generate.policy.pricing import Allowance
from services.generate.policy.schema import Policy
from services.generate.routing.decision import Against, RuledOut
from services.generate.routing.features import RESERVE_MS, RoutingFeatures


def rule_out(features: RoutingFeatures, policy: Policy, data_class: str) -> dict[str, RuledOut]:
    """The models that may not write, each with the first thing that speaks against it."""
    found = {}
    for name, model in policy.models.items():
        against = _against(features, policy, data_class, name, model)
        if against is not None:
            found[name] = RuledOut(name, *against)
    return found


def allowance(features: RoutingFeatures, policy: Policy) -> Allowance:
    """What the answer may cost: the least that the policy and the request allow."""
    limits = [
        one for one in (features.budget, policy.budgets.answer_nano_dollars) if one is not None
    ]
    return Allowance(
        min(limits, default=None), features.prompt_tokens, features.draft_tokens, features.images
    )


def _against(
    features: RoutingFeatures, policy: Policy, data_class: str, name: str, model: Model
) -> tuple[Against, str] | None:
    if model.state is State.RETIRED:
        return Against.RETIRED, "it is retired" + (
            f"; name {model.instead}" if model.instead else ""
        )
    if model.state is State.CANDIDATE and features.requested != name:
        return Against.CANDIDATE, "it is a candidate, which writes only where a request names it"
    if not permits(policy, data_class, name):
        return Against.COMPLIANCE, f"the policy does not allow it for data of class {data_class}"
    if features.key_tiers is not None and model.tier not in features.key_tiers:
        return Against.KEY_TIERS, f"this key may not use tier {model.tier}"
    if features.tiers is not None and model.tier not in features.tiers:
        return Against.TIERS, f"the caller does not allow tier {model.tier}"
    here = name in features.embedded
    if lacks := features.needs if here else model.lacks(features.needs):
        return Against.CAPABILITY, f"it lacks {', '.join(sorted(lacks))}"
    read = model.reads(features.prompt_tokens, features.images)
    needed = read + features.draft_tokens + model.thinking_tokens
    if model.context is not None and needed > model.context:
        return Against.CONTEXT, f"{needed} tokens may be needed, it has room for {model.context}"
    if (over := allowance(features, policy).against(model)) is not None:
        return Against.BUDGET, over
    left = features.remaining_ms - RESERVE_MS
    if model.latency_ms and model.latency_ms > left:
        return (
            Against.DEADLINE,
            f"it takes {model.latency_ms} ms, {max(0.0, left):.0f} ms are left for it",
        )
    return None
