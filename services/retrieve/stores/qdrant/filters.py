"""Scopes inside Qdrant's queries: what a document's metadata and readers become in a point's
payload, and what a scope asks of it.

`facts` is a list of words, one for each value of the metadata with its name and type and one for
each reader; what a comparison for equality and a permission ask is whether one is there. Numbers
and dates are also kept as numbers, each name in a field of its own, for the comparisons by order.

Floats hold whole numbers exactly up to 2^53: beyond it a comparison by order lets through what is
equal as a float, never less than is right, and `Scope.sees` on what was found takes care of the
rest.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.retrieve.stores.base import Metadata, Scope
from services.retrieve.stores.filters import (
    NEGATIVE,
    ORDERED,
    Comparison,
    Filter,
    Junction,
    Op,
    Scalar,
    instant,
    kind,
)
from services.retrieve.stores.qdrant.required import models

FACTS = "facts"
_OPEN = "[]"  # the fact of a document that names no readers; no other is an empty list
_LONGEST = 256  # characters of a fact; a longer one is known by its SHA-256
_EXACT = 2**53
_LARGEST = sys.float_info.max

Payload = dict[str, list[str] | list[float]]


@dataclass(frozen=True)
class Asked:
    """What a scope asks of points. condition: None asks nothing. ranges: the fields of numbers that
    it goes by, which want an index. nothing: no point can be in the scope."""

    condition: models.Filter | None = None
    ranges: frozenset[str] = frozenset()
    nothing: bool = False


def payload_of(metadata: Metadata, readers: Sequence[str] | None) -> Payload:
    """What a point's payload says of its document's metadata and readers."""
    facts = {_OPEN} if readers is None else {_reader(name) for name in readers}
    numbers: dict[str, set[float]] = {}
    for name, value in metadata.items():
        for one in value if isinstance(value, list) else [value]:
            if _is_nan(one):
                continue  # equals nothing
            facts.add(_fact(name, one))
            if kind(one) == "number":
                near = min(max(float(one), -_LARGEST), _LARGEST)  # JSON has no infinity
                numbers.setdefault(_field("number", name), set()).add(near)
            moment = instant(one) if isinstance(one, str) else None
            if moment is not None:
                numbers.setdefault(_field("date", name), set()).add(float(moment))
    fields: Payload = {field: sorted(values) for field, values in numbers.items()}
    return {FACTS: sorted(facts), **fields}


def asked_of(scope: Scope) -> Asked:
    """What the payload of a point must be for its document to be in the scope."""
    ranges: set[str] = set()
    parts: list[models.Condition | bool] = []
    if scope.filter is not None:
        parts.append(_condition(scope.filter, ranges))
    if scope.readers is not None:
        parts.append(_any_of([_OPEN, *map(_reader, sorted(scope.readers))]))
    whole = _joined("and", parts)
    if isinstance(whole, bool):
        return Asked(nothing=not whole)
    condition = whole if isinstance(whole, models.Filter) else models.Filter(must=[whole])
    return Asked(condition, frozenset(ranges))


def _condition(condition: Filter, ranges: set[str]) -> models.Condition | bool:
    """A filter as a condition; True or False where it does not depend on the point."""
    if isinstance(condition, Junction):
        return _joined(condition.op, [_condition(one, ranges) for one in condition.filters])
    if condition.op in ORDERED:
        return _in_order(condition, ranges)
    negative = condition.op in NEGATIVE
    facts = [_fact(condition.key, value) for value in condition.values if not _is_nan(value)]
    if not facts:
        return negative
    found = _any_of(facts)
    return models.Filter(must_not=[found]) if negative else found


def _joined(op: str, parts: Iterable[models.Condition | bool]) -> models.Condition | bool:
    """Several conditions as one. An empty list asks nothing of Qdrant, so it never gets one."""
    decided, left = op == "or", []  # True decides an `or`, False an `and`
    for part in parts:
        if isinstance(part, bool):
            if part is decided:
                return decided
        else:
            left.append(part)
    if not left:
        return not decided
    if len(left) == 1:
        return left[0]
    return models.Filter(should=left) if op == "or" else models.Filter(must=left)


def _in_order(condition: Comparison, ranges: set[str]) -> models.Condition:
    value = condition.values[0]
    # A text that is no date is refused by parse_filter.
    moment = instant(value) if isinstance(value, str) else None
    field = _field("number" if moment is None else "date", condition.key)
    wanted = moment if moment is not None else value
    if isinstance(wanted, str):
        raise TypeError(f"{wanted!r} has no order")
    ranges.add(field)
    bound, exact = float(wanted), abs(wanted) < _EXACT
    op = condition.op
    if op in (Op.GT, Op.GTE):
        above = models.Range(gt=bound) if op is Op.GT and exact else models.Range(gte=bound)
        return models.FieldCondition(key=field, range=above)
    below = models.Range(lt=bound) if op is Op.LT and exact else models.Range(lte=bound)
    return models.FieldCondition(key=field, range=below)


def _any_of(facts: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=FACTS, match=models.MatchAny(any=facts))


def _fact(name: str, value: Scalar) -> str:
    # 1 and 1.0 are one number, and a float may hold a whole number that JSON writes otherwise.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _bounded([name, kind(value), value])


def _reader(name: str) -> str:
    return _bounded([name])


def _bounded(parts: list[Scalar]) -> str:
    text = json.dumps(parts, ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _field(of: str, name: str) -> str:
    """The field of a name's numbers: any text may be a name, and a path in a payload may not."""
    return f"{of}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _is_nan(value: Scalar) -> bool:
    return isinstance(value, float) and math.isnan(value)
