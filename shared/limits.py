"""So many requests at work at once, a few that wait for a moment, and a clear word for the rest.

A service that takes all that comes answers nobody in time. What it can't take it refuses at once,
before it has read the body, so that the caller can go elsewhere or come back. And no place is held
for long by a caller who sends or takes nothing.
"""

import asyncio
from dataclasses import dataclass

from prometheus_client import Counter, Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import ApiError

AT_WORK = Gauge("refdesk_requests_at_work", "Requests at work, of those that are limited")
SHED = Counter("refdesk_requests_shed_total", "Requests refused as too many were at work")


@dataclass(frozen=True)
class Load:
    """What a service takes at once. paths: that are limited, together; all others never are.

    at_once: requests at work, a stream until its end. waiting: more that may wait. wait_s: for how
    long, seconds. longest_s: that a request may take, its body and its waiting included. reader_s:
    after which an answer is broken off whose caller takes nothing of it.
    """

    paths: frozenset[str]
    at_once: int
    waiting: int
    longest_s: float
    wait_s: float = 2.0
    reader_s: float = 60.0


class Shedding:
    """ASGI middleware that keeps a service to its load. Raises ApiError 503 `overloaded`."""

    def __init__(self, app: ASGIApp, *, load: Load) -> None:
        self._app = app
        self._load = load
        self._places = asyncio.Semaphore(load.at_once)
        self._waiting = 0

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

        await self._enter()
        AT_WORK.inc()
        try:
            await self._app(scope, receive, send_in_time)
        finally:
            AT_WORK.dec()
            self._places.release()

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._waiting >= self._load.waiting:
            raise self._overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._load.wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise self._overloaded() from None
        finally:
            self._waiting -= 1

    def _overloaded(self) -> ApiError:
        SHED.inc()
        return ApiError(
            503,
            "overloaded",
            f"{self._load.at_once} requests are at work already; try again in a moment",
            headers={"Retry-After": "1", "x-should-retry": "true"},
        )
