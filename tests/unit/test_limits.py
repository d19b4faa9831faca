"""A service that takes so much at once: who gets in, who waits, who is sent away."""

import asyncio
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from shared.errors import ApiError
from shared.limits import Load, Shedding


class Work:
    """An app whose requests take until they may end. at_work: how many there are."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most = 0
        self.end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await self.end.wait()
        finally:
            self.at_work -= 1


async def _receive() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def _send(_: object) -> None:
    """Nobody listens."""


def request(app: Shedding, path: str = "/work") -> "asyncio.Task[None]":
    return asyncio.ensure_future(app({"type": "http", "path": path}, _receive, _send))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def load(waiting: int, wait_s: float = 5.0) -> Load:
    return Load(
        frozenset({"/work"}),
        at_once=2,
        waiting=waiting,
        longest_s=60,
        wait_s=wait_s,
        reader_s=0.02,
    )


async def test_some_work_some_wait_for_their_turn_and_the_rest_are_refused() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=3))
    requests = [request(app) for _ in range(7)]
    await settle()
    assert work.at_work == 2
    refused = [one.exception() for one in requests if one.done()]
    assert [type(error) for error in refused] == [ApiError] * 2
    for error in refused:
        assert isinstance(error, ApiError)
        assert (error.status, error.code, error.headers["Retry-After"]) == (503, "overloaded", "1")
    work.end.set()
    await asyncio.gather(*requests, return_exceptions=True)
    assert work.most == 2
    assert sum(one.exception() is None for one in requests) == 5


async def test_other_paths_are_never_limited() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=0))
    requests = [request(app, path) for path in ["/work"] * 2 + ["/ready"] * 5]
    await settle()
    assert work.at_work == 7
    work.end.set()
    await asyncio.gather(*requests)


async def test_who_has_waited_long_enough_is_refused() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1, wait_s=0.02))
    requests = [request(app) for _ in range(2)]
    await settle()
    with pytest.raises(ApiError, match="at work already"):
        await request(app)
    work.end.set()
    await asyncio.gather(*requests)


async def test_a_place_is_given_back_by_who_leaves_while_waiting_or_at_work() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1))
    at_work = [request(app) for _ in range(2)]
    await settle()
    waiting = request(app)
    await settle()
    for one in (waiting, *at_work):
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    work.end.set()
    for _ in range(3):
        await asyncio.gather(request(app), request(app), request(app))
    assert work.at_work == 0


async def test_an_answer_that_its_caller_does_not_take_is_broken_off_and_gives_its_place_back() -> (
    None
):
    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"word", "more_body": True})

    async def blocked(_: object) -> None:
        await asyncio.Event().wait()

    app = Shedding(answers, load=load(waiting=0))
    for _ in range(3):  # more than there are places
        with pytest.raises(ApiError, match="took nothing") as raised:
            await app({"type": "http", "path": "/work"}, _receive, blocked)
        assert (raised.value.status, raised.value.code) == (499, "client_gone")
