"""What a policy allows, and whom it would ask. Pure functions: nothing is retrieved or written."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.generate.policy.schema import NOBODY, Policy
from services.generate.reading.passages import Signals
from services.generate.routing.eligible import rule_out
from services.generate.routing.features import features_of

_FOUND = Signals(top_score=1.0, margin=1.0, agreement=1.0, coverage=1.0, documents=1)
_NOTHING_ASKED = features_of("", _FOUND, confidence=1.0)


@dataclass(frozen=True)
class Cell:
    """Whether a model may write for data of a class. rule, why: what speaks against it, or empty.

    A model that writes only where it is named is allowed, if it is for this class.
    """

    data_class: str
    model: str
    allowed: bool
    rule: str
    why: str


@dataclass(frozen=True)
class RuleRow:
    """Whom a rule asks for data of a class. tier: None where it asks nobody, or nobody is left.

    models: the first, then its fallbacks.
    """

    rule: str
    data_class: str
    tier: str | None
    models: tuple[str, ...]


def matrix(policy: Policy) -> tuple[Cell, ...]:
    """Each class with each model."""
    return tuple(
        _cell(policy, data_class, model) for data_class in policy.classes for model in policy.models
    )


def _cell(policy: Policy, data_class: str, model: str) -> Cell:
    asked = replace(_NOTHING_ASKED, requested=model)
    against = rule_out(asked, policy, data_class).get(model)
    if against is None:
        return Cell(data_class, model, True, "", "")
    return Cell(data_class, model, False, against.rule, against.why)


def rule_rows(policy: Policy) -> tuple[RuleRow, ...]:
    """Each rule that decides, with each class that it may hold for."""
    return tuple(_rule_rows(policy))


def _rule_rows(policy: Policy) -> Iterator[RuleRow]:
    order = list(policy.tiers)
    for rule in policy.rules:
        if rule.then.tier is None:
            continue  # which tier it leads to is not its own
        tiers = [] if rule.then.tier == NOBODY else order[order.index(rule.then.tier) :]
        for data_class in policy.classes:
            if data_class not in (rule.when.data_class or policy.classes):
                continue
            out = rule_out(_NOTHING_ASKED, policy, data_class)
            left = {
                tier: tuple(model for model in policy.tiers[tier].models if model not in out)
                for tier in tiers
            }
            tier = next((one for one in tiers if left[one]), None)
            yield RuleRow(rule.name, data_class, tier, left[tier] if tier else ())
