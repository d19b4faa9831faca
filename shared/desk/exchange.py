"""One call to the desk from its first try to its result, without any input or output of its own.

`exchange` says what to do next and is told what came of it, so that the sync and the async client
are the same but for who waits.
"""

import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import orjson

from shared.desk.calls import Call
from shared.desk.errors import DeskError, OutOfTimeError, UnreachableError, error_class
from shared.finite import to_json
from shared.retry_after import retry_after_s

_PASSING = frozenset({429, 503})
_FIRST_PAUSE_S = 0.2
_CONNECT_S = 5.0
# Above the deadline that the desk is told: its own error says more than our time-out.
_GRACE_S = 2.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Terms:
    """What holds for every call of a client.

    timeout_s: what the desk is told that a call may take, its retries included. The client itself
    gives up where nothing has come for what is left of it and 2 s more. retries: further tries of
    a call that was not worked on, or may be repeated.
    """

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    retries: int


@dataclass(frozen=True)
class Send:
    """To do: send this request. timeout: httpx's."""

    method: str
    url: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes | None
    timeout: httpx.Timeout


@dataclass(frozen=True)
class Pause:
    """To do: wait so many seconds."""

    seconds: float


# What httpx raises: the last two for an address that can't be called.
FAILURES = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
Answer = httpx.Response | Exception | None
Exchange = Generator[Send | Pause, Answer, Result]


def exchange(call: Call[Result], terms: Terms) -> Exchange[Result]:
    """The steps of a call. Each is answered with the response or the error of a `Send`, or None.

    Returns the call's result. Raises DeskError.
    """
    content = None if call.body is None else _json(call.body)
    end = time.monotonic() + terms.timeout_s
    pause = _FIRST_PAUSE_S
    for left in reversed(range(terms.retries + 1)):
        answer = yield _send(call, terms, content, end - time.monotonic())
        wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
        pause *= 2
        if isinstance(answer, httpx.Response):
            failure: DeskError = _refusal(answer, terms)
            if answer.is_success:
                return _read(call, answer, terms)
            again = answer.status_code in _PASSING and _may_retry(answer)
            wait = max(wait, retry_after_s(answer.headers.get("retry-after", "0")))
        else:
            failure = _failure(answer, terms)
            never_sent = isinstance(answer, httpx.ConnectError | httpx.ConnectTimeout)
            again = never_sent or (
                call.repeatable
                and isinstance(answer, httpx.NetworkError | httpx.RemoteProtocolError)
            )
        if not again or not left or wait >= end - time.monotonic():
            raise failure
        yield Pause(wait)
    raise AssertionError("unreachable: the loop returns or raises")


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return to_json(body)
    except ValueError as error:
        raise DeskError(str(error)) from None


def _send(call: Call[Result], terms: Terms, content: bytes | None, left_s: float) -> Send:
    headers = {**terms.headers, "x-deadline-ms": str(max(1, int(left_s * 1000)))}
    if content is not None:
        headers["content-type"] = "application/json"
    timeout = httpx.Timeout(max(left_s, 0.001) + _GRACE_S, connect=min(_CONNECT_S, terms.timeout_s))
    return Send(call.method, terms.url + call.path, call.params, headers, content, timeout)


def _read(call: Call[Result], answer: httpx.Response, terms: Terms) -> Result:
    try:
        return call.read(answer.content)
    except ValueError:
        raise _no_desk(answer, terms) from None


def _refusal(answer: httpx.Response, terms: Terms) -> DeskError:
    """The error of an answer that is no success."""
    try:
        told = orjson.loads(answer.content)["error"]
        message, code = str(told["message"]), str(told["code"])
        param = None if told.get("param") is None else str(told["param"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return _no_desk(answer, terms)
    if code == "unknown_path":  # another of our services answers that
        return _no_desk(answer, terms)
    status = answer.status_code
    request_id = answer.headers.get("x-request-id")
    return error_class(status)(message, status, code, param, request_id)


def _no_desk(answer: httpx.Response, terms: Terms) -> DeskError:
    return UnreachableError(
        f"what answers at {terms.url} is no desk of refdesk (status {answer.status_code}): "
        "check the address; it is that of the service retrieve"
    )


def _failure(error: Exception | None, terms: Terms) -> DeskError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return UnreachableError(
            f"the desk at {terms.url} does not answer: start it, or check the address"
        )
    if isinstance(error, httpx.TimeoutException):
        message = f"the desk at {terms.url} gave no answer within {terms.timeout_s:g} s"
        return OutOfTimeError(message, 504, "deadline_exceeded", None, None)
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
        return DeskError(f"{terms.url} with this name behind it can't be called: {error}")
    return UnreachableError(
        f"the connection to the desk at {terms.url} broke off ({type(error).__name__})"
    )


def _may_retry(answer: httpx.Response) -> bool:
    return str(answer.headers.get("x-should-retry", "true")).lower() != "false"
