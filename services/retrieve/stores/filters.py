"""Filters on metadata: OpenAI's grammar, parsed once into values, and what they mean.

A comparison is `{"type": "eq", "key": "year", "value": 2026}`, a junction
`{"type": "and", "filters": [...]}` (https://platform.openai.com/docs/guides/retrieval). `matches`
is the meaning of both; docs/concepts/filters.md tells it in tables, and every store must agree.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import orjson

from shared.errors import ApiError

Scalar = str | int | float | bool
Kind = Literal["text", "number", "bool"]

MAX_DEPTH = 16
MAX_COMPARISONS = 256
MAX_LIST = 1000
MAX_VALUES = 4000  # of all lists together; each is a parameter of a store's query
MAX_CHARACTERS = 262_144  # of all keys and texts together
MAX_KEY = 128  # as long as a key of metadata may be
MAX_TEXT = 4096  # as long as a text of metadata may be

# What fromisoformat takes besides (week dates, any letter between date and time) is no date here.
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SHOWN = 40  # characters of a caller's text that an error repeats


class Op(StrEnum):
    """The comparisons."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"


ORDERED = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})
_ALONE = {Op.IN: Op.EQ, Op.NIN: Op.NE}
NEGATIVE = frozenset({Op.NE, Op.NIN})  # true exactly where eq and in are not


@dataclass(frozen=True)
class Comparison:
    """One key against a value (`in` and `nin`: a tuple of values)."""

    key: str
    op: Op
    value: Scalar | tuple[Scalar, ...]
    # Python takes 1 and True for equal, and a filter is the key of caches: they must differ.
    types: tuple[type, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(type(value) for value in self.values))

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The value or values, always as a tuple."""
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True)
class Junction:
    """All (`and`) or at least one (`or`) of several filters."""

    op: Literal["and", "or"]
    filters: tuple["Filter", ...]


Filter = Comparison | Junction


# --- what a filter means ----------------------------------------------------------------------


def matches(condition: Filter, metadata: Mapping[str, Scalar | list[str]]) -> bool:
    """Whether a document with this metadata passes the filter."""
    if isinstance(condition, Junction):
        found = (matches(one, metadata) for one in condition.filters)
        return all(found) if condition.op == "and" else any(found)
    value = metadata.get(condition.key, [])
    elements: list[Any] = value if isinstance(value, list) else [value]
    if condition.op in NEGATIVE:
        return not _one_is(condition, elements)
    if condition.op in ORDERED:
        return any(_in_order(condition.op, element, condition.values[0]) for element in elements)
    return _one_is(condition, elements)


def kind(value: Scalar) -> Kind:
    """What a value is compared as."""
    if isinstance(value, bool):  # before the numbers: Python's bool is an int
        return "bool"
    return "text" if isinstance(value, str) else "number"


def instant(text: str) -> int | None:
    """Microseconds since 1970 in UTC of an ISO 8601 date, or None where the text is none.

    `2026-01-31`, or with a time, `2026-01-31T10:00:00.5+02:00`; without a zone it is UTC.
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:  # 2026-02-30
        return None
    # By arithmetic: astimezone would leave the range of years at its ends.
    offset = date.utcoffset() or timedelta()
    return (date.replace(tzinfo=None) - _EPOCH - offset) // _MICROSECOND


def _one_is(condition: Comparison, elements: list[Any]) -> bool:
    return any(
        kind(element) == kind(value) and element == value
        for element in elements
        for value in condition.values
    )


def _in_order(op: Op, found: Scalar, wanted: Scalar) -> bool:
    if kind(found) != kind(wanted):
        return False
    if isinstance(found, str) and isinstance(wanted, str):
        one, other = instant(found), instant(wanted)
        return one is not None and other is not None and _ordered(op, one, other)
    return not isinstance(found, str | bool) and _ordered(op, found, wanted)


def _ordered(op: Op, found: Any, wanted: Any) -> bool:
    if op is Op.GT:
        return bool(found > wanted)
    if op is Op.GTE:
        return bool(found >= wanted)
    if op is Op.LT:
        return bool(found < wanted)
    return bool(found <= wanted)


# --- reading one ------------------------------------------------------------------------------


def parse_filter(body: object, param: str = "filter") -> Filter | None:
    """The filter of a request, from parsed JSON; None where there is none (null, {}, []).

    Raises ApiError 422 `bad_filter` whose `param` names the place, `filter.filters.1.value`, also
    for a filter that is too deep or too large (the constants above).
    """
    if body is None or body == {} or body == []:
        return None
    return _read(body, param, 1, _Room(param))


def read_filter(text: str | None, param: str = "filter") -> Filter | None:
    """The filter of a query string, JSON as text; None where there is none. Raises as
    `parse_filter`."""
    try:
        body = orjson.loads(text) if text else None
    except orjson.JSONDecodeError as error:
        raise _bad(param, f"is not JSON ({error})") from None
    return parse_filter(body, param)


class _Room:
    """What of the limits of a whole filter is left, while it is read.

    A filter may be as large as a body, and is read where all requests are: nothing of it is looked
    at beyond a limit.
    """

    def __init__(self, param: str) -> None:
        self._param = param
        self._comparisons, self._values, self._characters = 0, 0, 0

    def comparison(self, values: int) -> None:
        """Take room for one more comparison with so many values."""
        self._comparisons += 1
        self._values += values
        if self._comparisons > MAX_COMPARISONS:
            raise _bad(
                self._param,
                f"holds over {MAX_COMPARISONS} comparisons: put values of one key into one `in`",
            )
        if self._values > MAX_VALUES:
            raise _bad(
                self._param, f"holds over {MAX_VALUES} values in all; store fewer, broader ones"
            )

    def text(self, characters: int) -> None:
        """Take room for a key or a text."""
        self._characters += characters
        if self._characters > MAX_CHARACTERS:
            raise _bad(
                self._param,
                f"is over {MAX_CHARACTERS} characters of keys and texts; use shorter ones",
            )


def _read(body: object, at: str, depth: int, room: _Room) -> Filter:
    if depth > MAX_DEPTH:
        raise _bad(at, f"is nested over {MAX_DEPTH} deep: write it flatter")
    if not isinstance(body, Mapping):
        raise _bad(at, 'must be an object such as {"type": "eq", "key": "year", "value": 2026}')
    op = body.get("type")
    if op in ("and", "or"):
        _require_fields(body, ("type", "filters"), at)
        parts = body["filters"]
        if not isinstance(parts, list) or not parts:
            raise _bad(f"{at}.filters", "must be a list of at least one filter")
        if len(parts) > MAX_COMPARISONS:  # before they are read
            raise _bad(
                f"{at}.filters",
                f"is a list of {len(parts)} filters, and at most {MAX_COMPARISONS} are taken: "
                "put values of one key into one `in`",
            )
        read = (_read(part, f"{at}.filters.{n}", depth + 1, room) for n, part in enumerate(parts))
        return Junction("and" if op == "and" else "or", tuple(read))
    if not isinstance(op, str) or op not in set(Op):
        known = ", ".join([*Op, "and", "or"])
        raise _bad(f"{at}.type", f"is {_shown(op)}, and must be one of {known}")
    _require_fields(body, ("type", "key", "value"), at)
    key = body["key"]
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY or not _is_unicode(key):
        raise _bad(
            f"{at}.key", f"must be a key of the metadata, a text of 1 to {MAX_KEY} characters"
        )
    room.text(len(key))
    return Comparison(key, Op(op), _value(Op(op), body["value"], f"{at}.value", room))


def _require_fields(body: Mapping[Any, object], wanted: tuple[str, ...], at: str) -> None:
    of = f"a filter of type {body['type']}"
    for name in wanted:
        if name not in body:
            raise _bad(f"{at}.{name}", f"is missing: {of} has {', '.join(wanted)}")
    for name in body:
        if name not in wanted:
            raise _bad(at, f"has a field {_shown(name)}, and {of} has only {', '.join(wanted)}")


def _value(op: Op, value: object, at: str, room: _Room) -> Scalar | tuple[Scalar, ...]:
    if op in (Op.IN, Op.NIN):
        if not isinstance(value, list):
            raise _bad(at, f"must be a list for {op}; for one value use {_ALONE[op]}")
        if len(value) > MAX_LIST:
            raise _bad(
                at,
                f"is a list of {len(value)} values, and at most {MAX_LIST} are taken: "
                "store what they have in common as metadata, and filter by that",
            )
        room.comparison(len(value))
        return tuple(_scalar(one, f"{at}.{number}", room) for number, one in enumerate(value))
    room.comparison(1)
    one = _scalar(value, at, room)
    if op in ORDERED and (isinstance(one, bool) or (isinstance(one, str) and instant(one) is None)):
        raise _bad(
            at,
            f"must be a number or an ISO 8601 date for {op}, such as 7, 2026-01-31 or "
            f"2026-01-31T10:00:00Z, and is {_shown(one)}",
        )
    return one


def _scalar(value: object, at: str, room: _Room) -> Scalar:
    if isinstance(value, list):
        raise _bad(at, "must be one value, no list; `in` and `nin` take a list of values")
    if not isinstance(value, str | int | float | bool):
        raise _bad(at, f"must be a text, a number, true or false, and is {_shown(value)}")
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise _bad(at, f"is a text of over {MAX_TEXT} characters, longer than any in metadata")
        room.text(len(value))
        if not _is_unicode(value):
            raise _bad(at, "holds half of a surrogate pair, which is no text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _bad(at, "is not a finite number")
    elif not -(2**63) <= value < 2**63:
        raise _bad(at, "is a whole number beyond 64 bits, larger than any in metadata")
    return value


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """A caller's value in an error: short, and never what is inside of an object."""
    if isinstance(value, str):
        return repr(value[:_SHOWN]) + ("…" if len(value) > _SHOWN else "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.6g}"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def _bad(at: str, what: str) -> ApiError:
    return ApiError(422, "bad_filter", f"{at}: {what}", param=at)
