"""What a server does not take of our requests, as far as it has said so.

Servers differ in what they know: older ones and some gateways refuse `stream_options`, newer models
of OpenAI's want `max_completion_tokens` for `max_tokens` and no `temperature` but their own. Only
fields that we add ourselves are left out, never one that a client sent.

A refusal may quote the request, or what the model wrote. So only the parts that servers say their
reasons in are read, and nothing is believed for long.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

# The fields that a draft can do without, and what takes a field's place.
_INSTEAD: Mapping[str, str | None] = {
    "stream_options": None,
    "temperature": None,
    "max_tokens": "max_completion_tokens",
}
_REFUSALS = frozenset({400, 422})
_REASONS = ("error", "message", "detail", "errors")  # where servers say them
_REASON_CHARACTERS = 300
_DEEPEST, _MOST_REASONS = 4, 16
# A validation error of Pydantic that is told as text repeats what was sent behind what is wrong.
_ECHO = re.compile(r"""\\?["']input\\?["'] ?:|input_value ?=""")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")
_NO = re.compile(
    r"\b(?:un(?:supported|known|recogni[sz]ed|expected)|extra|invalid|deprecated|instead|must)\b"
    r"|(?:\bnot|n't) (?:be )?(?:support(?:ed)?|permitted|allowed|accepted|recogni[sz]ed)\b",
    re.IGNORECASE,
)
# With these a model's own words may be in a refusal: a call or a text that does not parse.
_WRITTEN_TO_FORM = frozenset({"tools", "response_format"})
_BELIEVED_S = 600.0


@dataclass
class Dialect:
    """What was learned of a server in the last ten minutes. clock: seconds, monotonic."""

    clock: Callable[[], float]
    _since: dict[str, float] = field(default_factory=dict)

    @property
    def left_out(self) -> frozenset[str]:
        """The fields that it is not sent."""
        oldest = self.clock() - _BELIEVED_S
        return frozenset(name for name, since in self._since.items() if since > oldest)

    def learn(self, fields: frozenset[str]) -> None:
        """It has taken a request without these fields, that it refused with them."""
        self._since |= dict.fromkeys(fields, self.clock())


@dataclass(frozen=True)
class _Reason:
    """What a server says is wrong. param: the field that it says it of, "" where it names none."""

    words: str
    param: str = ""


def without(body: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """The body as a server is sent it that does not take these fields."""
    sent = {name: value for name, value in body.items() if name not in left_out}
    for name in left_out & body.keys():
        if (instead := _INSTEAD[name]) is not None:
            sent[instead] = body[name]
    return sent


def refused(status: int, told: bytes, sent: Mapping[str, Any]) -> frozenset[str]:
    """The fields of what was sent that a refusal says it is for: of its `param`, if it has one.

    told: the refusal as it came, JSON or not: servers agree on no form. That a field is named need
    not mean that it is at fault: whether it is shows when the request is answered without it.
    """
    if status not in _REFUSALS:
        return frozenset()
    reasons = list(_reasons(told))
    spared = [name for name in _INSTEAD if name in sent]
    if any(one.param for one in reasons):
        return frozenset(
            name for name in spared for one in reasons if one.param == name and _says(one, name)
        )
    if _WRITTEN_TO_FORM & sent.keys():
        return frozenset()
    return frozenset(name for name in spared for one in reasons if _says(one, name))


def _says(reason: _Reason, name: str) -> bool:
    """Whether it says that the field is not taken, and names what takes its place."""
    words = _ECHO.split(reason.words[:_REASON_CHARACTERS], maxsplit=1)[0]
    instead = _INSTEAD[name]
    if instead is not None and not _names(words, instead):
        return False
    if reason.param:
        return bool(_NO.search(words))
    return any(_names(one, name) and _NO.search(one) for one in _SENTENCE_END.split(words))


def _names(words: str, name: str) -> bool:
    return bool(re.search(rf"\b{name}\b", words))


def _reasons(told: bytes) -> Iterator[_Reason]:
    try:
        parsed = orjson.loads(told)
    except orjson.JSONDecodeError:
        yield _Reason(told.decode(errors="replace").strip().partition("\n")[0])
    else:
        yield from _within(parsed, _DEEPEST)


def _within(told: Any, deep: int) -> Iterator[_Reason]:
    match told:
        case str():
            yield _Reason(told)
        case {"loc": [*place], "msg": str(words)}:  # of FastAPI and what is built on it
            fields = [str(one) for one in place if one != "body"]
            yield _Reason(words, fields[0] if fields else "body")
        case {"message": str(words), "param": str(param)} if param:
            yield _Reason(words, param.partition(".")[0])
        case dict() if deep:
            for name in _REASONS:
                yield from _within(told.get(name), deep - 1)
        case list() if deep:
            for one in told[:_MOST_REASONS]:
                yield from _within(one, deep - 1)
