"""Bringing an answer to its caller: stop when they hang up, show life while they wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import Request

from services.generate.answer import stream
from services.generate.answer.pipeline import Engine, Prepared
from services.generate.metrics import record
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")

# How often a stream shows that it lives, and how soon a caller's leaving is noticed.
_KEEP_ALIVE_SECONDS = 2.0
# A stream ends with an error event of its own just before the deadline would cut it off.
_CLOSING_SECONDS = 0.25


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


async def events(
    engine: Engine,
    request: Request,
    envelope: stream.Envelope,
    prepared: Prepared,
    started: float,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    """The events of a stream. From the first on, an error is an event, too."""
    yield stream.opening(envelope)
    task = asyncio.ensure_future(engine.finish(prepared))
    try:
        while not task.done():
            left = current().deadline.remaining_ms() / 1000 - _CLOSING_SECONDS
            if left <= 0:
                raise deadline_exceeded()
            await asyncio.wait({task}, timeout=min(left, _KEEP_ALIVE_SECONDS))
            if not task.done():
                if await request.is_disconnected():
                    return
                yield stream.KEEP_ALIVE
        outcome = task.result()
        total = record(prepared, outcome, started)
        for event in stream.rest(envelope, prepared, outcome, total, include_usage=include_usage):
            yield event
    except ApiError as error:
        yield stream.failure(error.body())
    except Exception as error:
        log.exception("unexpected_error", error=type(error).__name__)
        hidden = ApiError(
            500,
            "internal_error",
            "refdesk failed on this request; its log has the cause under id "
            f"{current().request_id}",
        )
        yield stream.failure(hidden.body())
    finally:
        _drop(task)
