"""Which questions the rules of a policy leave to each other. Pure functions.

Each condition divides the questions along one dimension; a rule is a box: for each dimension that
it speaks of, the values that it takes. Whether boxes cover another is tried out cell by cell.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from services.generate.policy.schema import NUMBERS, SHARES, Policy, Range, When
from services.generate.reading.question import AnswerKind, Intent

Box = Mapping[str, frozenset[object]]
_MOST_CELLS = 50_000


def boxes(policy: Policy) -> tuple[list[Box], Box]:
    """The box of each rule, and all values of each dimension that any rule speaks of.

    A range is cut at the bounds that rules name: between two of them, all rules see the same, so
    the lower stands for all. Lists of keywords, and rates of success, count as independent.
    """
    whens = [rule.when for rule in policy.rules]
    everything: dict[str, frozenset[object]] = {
        "intent": frozenset(Intent),
        "asks_for": frozenset(AnswerKind),
        "data_class": frozenset(policy.classes),
        "language": frozenset(code for when in whens for code in when.language or ()) | {""},
        "flagged": frozenset({True, False}),
        "tools": frozenset({True, False}),
        "schema_": frozenset({True, False}),
        "vision": frozenset({True, False}),
    }
    for name in NUMBERS:
        ranges: list[Range] = [getattr(when, name) for when in whens if getattr(when, name)]
        bounds = {bound for one in ranges for bound in (one.min, one.below) if bound is not None}
        most = 1.0 if name in SHARES else math.inf
        everything[name] = frozenset({0.0} | {bound for bound in bounds if 0 <= bound <= most})
    for when in whens:
        everything |= {name: frozenset({True, False}) for name in _flags(when)}
    return [_box(when, everything) for when in whens], everything


def covered(box: Box, others: Sequence[Box], everything: Box) -> bool:
    """Whether each question of `box` is one of `others`, too.

    With very many conditions it is tried for each of `others` alone.
    """
    names = sorted({name for other in others for name in other})
    values = [sorted(box.get(name, everything[name]), key=str) for name in names]
    if math.prod(map(len, values)) > _MOST_CELLS:
        return any(covered(box, [other], everything) for other in others)
    for cell in itertools.product(*values):
        seen = dict(zip(names, cell, strict=True))
        if not any(all(seen[name] in taken for name, taken in one.items()) for one in others):
            return False
    return True


def _flags(when: When) -> list[str]:
    """The dimensions that either hold or don't."""
    words = [f"keywords {sorted(set(when.keywords))}"] if when.keywords else []
    served = [f"served {when.served}"] if when.served else []
    success = [f"success of {when.success.tier} {when.success}"] if when.success else []
    return words + served + success


def _box(when: When, everything: Box) -> Box:
    found: dict[str, frozenset[object]] = {name: frozenset({True}) for name in _flags(when)}
    for name in ("intent", "asks_for", "data_class", "language"):
        if (listed := getattr(when, name)) is not None:
            found[name] = frozenset(listed)
    for name in ("flagged", "tools", "schema_", "vision"):
        if (needed := getattr(when, name)) is not None:
            found[name] = frozenset({needed})
    for name in NUMBERS:
        bounds: Range | None = getattr(when, name)
        if bounds is not None:
            found[name] = frozenset(
                value
                for value in everything[name]
                if isinstance(value, float | int) and bounds.holds(value)
            )
    return found
