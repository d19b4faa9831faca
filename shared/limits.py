"""So many requests at work at once, a few that wait for a moment, and a clear word for the rest.

A service that takes all that comes answers nobody in time. What it can't take it refuses at once,
so that the caller can go elsewhere or come back: before any of the body is read where all places
are taken or too many bodies are still coming; while it is read where all bodies together would
become too large; after it where the places were taken meanwhile.

A place is taken once the body is whole, so that nobody holds one by sending slowly; nor for long by
taking nothing of the answer. Memory is bounded all the same: so many bodies may be coming, and all
that are coming or worked on may have so many bytes together. And where there are several API keys,
none can take the places and the bytes of all others.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import prometheus_client
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.context import current
from shared.errors import ApiError

AT_WORK = prometheus_client.Gauge(
    "refdesk_requests_at_work", "Requests at work, of those that are limited"
)
SHED = prometheus_client.Counter(
    "refdesk_requests_shed_total", "Requests refused as too many were at work", ["code"]
)

# Of all bodies of a process together. Room for nearly twenty of the largest conversations with
# images, and what most machines have to spare, also where each body is there twice: as it was read,
# and as it is sent on.
BODY_BYTES = 512 * 1024 * 1024
# That a value of JSON counts beside its text: more than it takes once it is read. `[],` is 3 bytes
# of a body and 64 of memory; `{"a":1},` is 8 and 192, and counts twice.
_VALUE_BYTES = 128


@dataclass(frozen=True)
class Load:
    """What a service takes at once. paths: that are limited, together; all others never are.

    at_once: requests at work, a stream until its end. waiting: more that may wait. As many as both
    together may still send their bodies. longest_s: that a request may take, its body and its
    waiting included. per_key: requests of one API key, also those that wait or still send their
    body; 0 for half of `at_once`, where there are several keys. body_bytes: of all bodies, from
    their first byte to the end of the answer, with what is read from them; half of them for one
    key, where there are several.
    wait_s: for how long one waits, seconds. reader_s: after which an answer is broken off whose
    caller takes nothing of it.
    """

    paths: frozenset[str]
    at_once: int
    waiting: int
    longest_s: float
    per_key: int = 0
    body_bytes: int = BODY_BYTES
    wait_s: float = 2.0
    reader_s: float = 60.0

    def share(self, keys: int) -> int | None:
        """The requests that one of so many API keys may have at once; None for any number.

        Without keys all requests are of one principal, who would have no one to share with.
        """
        if keys == 0:
            return None
        if self.per_key:
            return self.per_key
        return max(1, self.at_once // 2) if keys > 1 else None

    def byte_share(self, keys: int) -> int:
        """The bytes that the bodies of one of so many API keys may have together."""
        return self.body_bytes // 2 if keys > 1 else self.body_bytes


@dataclass
class _Held:
    """What one principal holds just now: requests, and the bytes of their bodies."""

    requests: int = 0
    body_bytes: int = 0


def values_in(text: bytes | bytearray) -> int:
    """How many values a JSON text has at most, but for one: what a further one may begin with.

    Such characters within strings count, too: this way it is known at once.
    """
    return sum(map(text.count, b",[{"))


class Shedding:
    """ASGI middleware that keeps a service to its load. keys: the holders of its API keys.

    Raises ApiError: 503 `overloaded`; 429 `key_busy` for a key that has its share already; what
    reading the body raises.
    """

    def __init__(self, app: ASGIApp, *, load: Load, keys: int) -> None:
        self._app = app
        self._load = load
        self._places = asyncio.Semaphore(load.at_once)
        self._waiting = 0
        self._coming = 0  # bodies
        self._share = load.share(keys)
        self._byte_share = load.byte_share(keys)
        self._body_bytes = 0  # of all principals
        self._held = defaultdict[str, _Held](_Held)  # by the name of a principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope, in its turn."""
        if scope["type"] != "http" or scope["path"] not in self._load.paths:
            await self._app(scope, receive, send)
            return

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._load.reader_s):
                    await send(message)
            except TimeoutError:
                seconds = f"{self._load.reader_s:g} s"
                raise ApiError(
                    499, "client_gone", f"the caller took nothing of the answer for {seconds}"
                ) from None

        with self._within_share() as hold:
            # Nothing of the body stays in this frame: an answer takes its time.
            given = _given(await self._whole(receive, hold), receive)
            await self._enter()
            AT_WORK.inc()
            try:
                await self._app(scope, given, send_in_time)
            finally:
                AT_WORK.dec()
                self._places.release()

    @contextmanager
    def _within_share(self) -> Iterator[Callable[[int], None]]:
        """Count a request of the principal at hand, for as long as it takes.

        Gives what counts further bytes of its body, and raises where there is no room for them.
        """
        name = current().principal.name
        own = self._held[name]
        if self._share is not None and own.requests >= self._share:
            raise _key_busy(f"{self._share} requests of this API key are at work already")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._body_bytes + size > self._load.body_bytes:
                raise _overloaded("the bodies of all requests are too large together")
            if own.body_bytes + size > self._byte_share:
                raise _key_busy("the bodies of this API key's requests are too large together")
            held += size
            own.body_bytes += size
            self._body_bytes += size

        own.requests += 1
        try:
            yield hold
        finally:
            own.requests -= 1
            own.body_bytes -= held
            self._body_bytes -= held
            if not own.requests:
                del self._held[name]

    async def _whole(self, receive: Receive, hold: Callable[[int], None]) -> bytes:
        """The body of a request, once all of it is there."""
        self._require_room()
        most = self._load.at_once + self._load.waiting
        if self._coming >= most:
            raise _overloaded(f"{most} requests are still sending their bodies")
        body = bytearray()
        self._coming += 1
        try:
            while (message := await receive())["type"] == "http.request":
                part = message.get("body", b"")
                hold(len(part) + _VALUE_BYTES * values_in(part))
                body += part
                if not message.get("more_body", False):
                    return bytes(body)
        finally:
            self._coming -= 1
        raise ApiError(499, "client_gone", "the caller hung up before the body was whole")

    def _require_room(self) -> None:
        if self._places.locked() and self._waiting >= self._load.waiting:
            raise self._full()

    async def _enter(self) -> None:
        self._require_room()
        if not self._places.locked():
            await self._places.acquire()
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._load.wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise self._full() from None
        finally:
            self._waiting -= 1

    def _full(self) -> ApiError:
        return _overloaded(f"{self._load.at_once} requests are at work already")


def _overloaded(reason: str) -> ApiError:
    return _refused(503, "overloaded", f"{reason}; try again in a moment")


def _key_busy(reason: str) -> ApiError:
    advice = "no key may have more: send this one again when one of them has ended"
    return _refused(429, "key_busy", f"{reason}, and {advice}")


def _refused(status: int, code: str, message: str) -> ApiError:
    SHED.labels(code).inc()
    return ApiError(status, code, message, headers={"Retry-After": "1", "x-should-retry": "true"})


def _given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return left.pop() if left else await receive()

    return given
