"""Which models may not write this time, and why. Pure functions."""

from services.generate.policy.models import Model, State
from services.generate.policy.pricing import cost
from services.generate.policy.schema import Policy
from services.generate.routing.compliance import permits
from services.generate.routing.decision import (
    BUDGET,
    CANDIDATE,
    CAPABILITY,
    COMPLIANCE,
    CONTEXT,
    DEADLINE,
    KEY_TIERS,
    RETIRED,
    TIERS,
    RuledOut,
)
from services.generate.routing.request import RESERVE_MS, RoutingFeatures


def rule_out(features: RoutingFeatures, policy: Policy, data_class: str) -> dict[str, RuledOut]:
    """The models that may not write, each with the first thing that speaks against it."""
    found = {}
    for name, model in policy.models.items():
        against = _against(features, policy, data_class, name, model)
        if against is not None:
            found[name] = RuledOut(name, *against)
    return found


def _against(
    features: RoutingFeatures, policy: Policy, data_class: str, name: str, model: Model
) -> tuple[str, str] | None:
    if model.state is State.RETIRED:
        return RETIRED, "it is retired" + (f"; name {model.instead}" if model.instead else "")
    if model.state is State.CANDIDATE and features.requested != name:
        return CANDIDATE, "it is a candidate, which writes only where a request names it"
    if not permits(policy, data_class, name):
        return COMPLIANCE, f"the policy does not allow it for data of class {data_class}"
    if features.key_tiers is not None and model.tier not in features.key_tiers:
        return KEY_TIERS, f"this key may not use tier {model.tier}"
    if features.tiers is not None and model.tier not in features.tiers:
        return TIERS, f"the caller does not allow tier {model.tier}"
    able = () if name in features.embedded else model.capabilities
    if able is not None and (lacks := features.needs - {*able}):
        return CAPABILITY, f"it lacks {', '.join(sorted(lacks))}"
    needed = features.prompt_tokens + features.draft_tokens
    if model.context is not None and needed > model.context:
        return CONTEXT, f"{needed} tokens may be needed, it has room for {model.context}"
    if (over := _over_budget(features, policy, model)) is not None:
        return BUDGET, over
    left = features.remaining_ms - RESERVE_MS
    if model.latency_ms and model.latency_ms > left:
        return DEADLINE, f"it takes {model.latency_ms} ms, {max(0.0, left):.0f} ms are left for it"
    return None


def _over_budget(features: RoutingFeatures, policy: Policy, model: Model) -> str | None:
    limits = [
        one for one in (features.budget, policy.budgets.answer_nano_dollars) if one is not None
    ]
    if not limits:
        return None
    price = cost(model, features.prompt_tokens, features.draft_tokens)
    if price is None:
        return f"it has no price, and the budget is {min(limits)} nano-dollars"
    if price <= min(limits):
        return None
    return f"a draft may cost {price} nano-dollars, the budget is {min(limits)}"
