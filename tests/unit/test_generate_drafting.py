"""Asking writers for a draft: what one that has ended still says is shown to nobody."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.generate.answer.drafting import Lane, draft_of
from services.generate.answer.outcome import Spending, Trace
from services.generate.policy.models import Model
from services.generate.prompting.showing import Showing
from services.generate.routing.features import RESERVE_MS
from services.generate.tiers.endpoint import Draft, DraftRequest
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError

LATE = "Ada Lovelace wrote the first program."
Behaviour = Callable[[Callable[[str], None]], Awaitable[Draft]]


class Writer:
    """A writer that does what it is told with the way to its reader."""

    name = model = "writer"

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def draft(self, request: DraftRequest) -> Draft:
        assert request.show is not None
        return await self._behaviour(request.show)

    async def close(self) -> None:
        """Nothing to let go of."""


async def fails_and_says_more(show: Callable[[str], None]) -> Draft:
    asyncio.get_running_loop().call_soon(show, LATE)
    raise ApiError(503, "writer_slow", "too slow")


async def says_more_once_its_time_is_up(show: Callable[[str], None]) -> Draft:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        show(LATE)
        raise
    raise AssertionError("it had all the time")


@pytest.mark.parametrize("behaviour", [fails_and_says_more, says_more_once_its_time_is_up])
async def test_what_a_writer_says_after_its_end_is_not_shown(behaviour: Behaviour) -> None:
    enter(RequestContext("-", Deadline.after_ms(RESERVE_MS + 60), NOBODY))
    seen: list[str] = []
    showing = Showing(seen.append, ())
    free = Model.model_validate({"tier": "small", "kind": "extractive"})
    lane = Lane("writer", free, Writer(behaviour), "small", showing, followed=True)
    request = DraftRequest("Who?", (), (), 160, "0f0f", lambda _: True)
    trace = Trace([], Spending())
    _, draft = await draft_of(lane, iter(()), request, trace, None)
    await asyncio.sleep(0)
    assert draft is None
    assert (seen, showing.begun) == ([], False)
    assert trace.degraded == ["writer"]
