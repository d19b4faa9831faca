"""Bringing an answer to its caller: put it on record, show life meanwhile, stop when they leave."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from services.generate.answer.outcome import Outcome
from services.generate.delivery.wire import KEEP_ALIVE, Wire
from services.generate.metrics import record
from services.generate.pipeline import Engine, Prepared, Query
from services.generate.trust.case import Case
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")

# How often a stream shows that it lives, and how soon a caller's leaving is noticed.
_KEEP_ALIVE_SECONDS = 2.0
# A stream ends with an error event of its own just before the deadline would cut it off.
_CLOSING_SECONDS = 0.25


@dataclass(frozen=True)
class Delivery:
    """How one answer goes out. wire: its form. streamed: as events.

    started: when its request came, of `time.perf_counter`.
    """

    engine: Engine
    case: Case
    request: Request
    wire: Wire
    streamed: bool
    started: float

    async def answer(self, query: Query) -> Response | BaseModel:
        """The answer to a question, whole or as a stream. Raises what the engine raises.

        Raises ApiError 503 `audit_unavailable` where it can't be put on record.
        """
        try:
            prepared = await unless_gone(self.request, self.engine.prepare(query))
            self.case.prepared = prepared
            if not self.streamed:
                return await self._whole(prepared)
        except ApiError as error:
            if self.case.spending.attempts:
                # Writers were asked, and asked again: a client that repeats it all multiplies that.
                error.headers.setdefault("x-should-retry", "false")
            await self.case.failed(error)
            raise
        except Exception:  # a defect, which the envelope logs and answers
            await self.case.failed(_defect())
            raise
        except BaseException:
            self.case.abandoned()
            raise
        return _Stream(
            self._events(prepared),
            self.case,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _whole(self, prepared: Prepared) -> BaseModel:
        finishing = self.engine.finish(prepared, self.case.spending)
        outcome = await unless_gone(self.request, finishing)
        total = await self._recorded(prepared, outcome)
        return self.wire.whole(prepared, outcome, total)

    async def _recorded(self, prepared: Prepared, outcome: Outcome) -> float:
        """Put the answer on record; milliseconds since its request came."""
        began = time.perf_counter()
        head = await self.case.answered(outcome)
        audit_ms = (time.perf_counter() - began) * 1000
        place = str(head) if head else None
        self.engine.keep(prepared, outcome, place)
        return record(prepared, outcome, place, audit_ms, self.started)

    async def _events(self, prepared: Prepared) -> AsyncGenerator[bytes, None]:
        """The events of a stream. From the first on, an error is an event, too."""
        shown: asyncio.Queue[str | None] = asyncio.Queue()
        finishing = self.engine.finish(prepared, self.case.spending, shown.put_nowait)
        task = asyncio.ensure_future(finishing)
        task.add_done_callback(lambda _: shown.put_nowait(None))
        try:
            yield self.wire.opening(prepared)
            while True:
                left = current().deadline.remaining_ms() / 1000 - _CLOSING_SECONDS
                if left <= 0:
                    raise deadline_exceeded()
                try:
                    async with asyncio.timeout(min(left, _KEEP_ALIVE_SECONDS)):
                        piece = await shown.get()
                except TimeoutError:
                    if await self.request.is_disconnected():
                        raise _gone() from None
                    yield KEEP_ALIVE
                    continue
                if piece is None:
                    break
                yield self.wire.piece(piece)
            outcome = task.result()
            total = await self._recorded(prepared, outcome)
            for event in self.wire.rest(prepared, outcome, total):
                yield event
        except ApiError as error:
            await self.case.failed(error)
            yield self.wire.failure(error.body())
        except Exception as error:
            log.exception("unexpected_error", error=type(error).__name__)
            hidden = _defect()
            await self.case.failed(hidden)
            yield self.wire.failure(hidden.body())
        finally:
            self.case.abandoned()  # unless it was put on record above
            _drop(task)


class _Stream(StreamingResponse):
    """A stream whose case is on record also where it is cut off before its first event.

    Its events end with it. The framework leaves those of a caller who has left suspended until they
    happen to be collected, and their draft would go on so long.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], case: Case, **more: Any) -> None:
        super().__init__(events, **more)
        self._events = events
        self._case = case

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._case.abandoned()  # unless its end is on record


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work, but stop it when the caller hangs up. Raises what the work raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_KEEP_ALIVE_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise _gone()
        return task.result()
    finally:
        _drop(task)


def _drop(task: "asyncio.Future[Any]") -> None:
    """Stop work that nobody waits for; what it raises on its way out interests nobody either."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _gone() -> ApiError:
    return ApiError(499, "client_gone", "the caller hung up before the answer was ready")


def _defect() -> ApiError:
    return ApiError(
        500,
        "internal_error",
        f"refdesk failed on this request; its log has the cause under id {current().request_id}",
    )
