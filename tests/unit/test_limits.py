"""A service that takes so much at once: who gets in, who waits, who is sent away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.auth import Principal
from shared.context import RequestContext, current, enter
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


async def _receive() -> Message:
    return {"type": "http.request", "body": b""}


class Body:
    """A body that comes in parts. asked: how many were asked for."""

    def __init__(self, *parts: bytes) -> None:
        self.parts: asyncio.Queue[Message] = asyncio.Queue()
        self.asked = 0
        for part in parts:
            self.add(part)

    def add(self, part: bytes, *, last: bool = False) -> None:
        self.parts.put_nowait({"type": "http.request", "body": part, "more_body": not last})

    def leave(self) -> None:
        self.parts.put_nowait({"type": "http.disconnect"})

    async def __call__(self) -> Message:
        self.asked += 1
        return await self.parts.get()


@contextmanager
def acting_for(name: str) -> Iterator[None]:
    """What begins within is of this principal."""
    before = current()
    enter(RequestContext("-", before.deadline, Principal(name, "reader")))
    try:
        yield
    finally:
        enter(before)


async def _send(_: object) -> None:
    """Nobody listens."""


def request(
    app: Shedding, path: str = "/work", receive: Receive = _receive
) -> "asyncio.Task[None]":
    return asyncio.ensure_future(app({"type": "http", "path": path}, receive, _send))


def requests_of(app: Shedding, name: str, count: int) -> "list[asyncio.Task[None]]":
    with acting_for(name):
        return [request(app) for _ in range(count)]


def refusals(tasks: "list[asyncio.Task[None]]") -> list[tuple[int, str]]:
    """Status and code of those that were refused by now."""
    errors = [one.exception() for one in tasks if one.done()]
    return [(error.status, error.code) for error in errors if isinstance(error, ApiError)]


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
    app = Shedding(work, load=load(waiting=3), keys=0)
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
    app = Shedding(work, load=load(waiting=0), keys=0)
    requests = [request(app, path) for path in ["/work"] * 2 + ["/ready"] * 5]
    await settle()
    assert work.at_work == 7
    work.end.set()
    await asyncio.gather(*requests)


async def test_who_has_waited_long_enough_is_refused() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1, wait_s=0.02), keys=0)
    requests = [request(app) for _ in range(2)]
    await settle()
    with pytest.raises(ApiError, match="at work already"):
        await request(app)
    work.end.set()
    await asyncio.gather(*requests)


async def test_a_place_is_given_back_by_who_leaves_while_waiting_or_at_work() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1), keys=0)
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

    app = Shedding(answers, load=load(waiting=0), keys=0)
    for _ in range(3):  # more than there are places
        with pytest.raises(ApiError, match="took nothing") as raised:
            await app({"type": "http", "path": "/work"}, _receive, blocked)
        assert (raised.value.status, raised.value.code) == (499, "client_gone")


# --- the body ----------------------------------------------------------------------------------


async def test_who_sends_slowly_takes_no_place_until_the_body_is_whole() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1), keys=0)
    bodies = [Body(b"a") for _ in range(2)]  # as many as there are places
    slow = [request(app, receive=body) for body in bodies]
    await settle()
    quick = request(app)
    await settle()
    assert work.at_work == 1
    bodies[0].add(b"b", last=True)
    await settle()
    assert work.at_work == 2
    waiting = request(app)
    await settle()
    bodies[1].add(b"b", last=True)  # and now it is full
    await settle()
    assert refusals(slow) == [(503, "overloaded")]
    work.end.set()
    await asyncio.gather(slow[0], quick, waiting)


async def test_so_many_bodies_may_be_coming_and_one_more_is_refused_before_it_is_read() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=1), keys=0)
    bodies = [Body(b"a") for _ in range(3)]
    slow = [request(app, receive=body) for body in bodies]
    await settle()
    unread = Body(b"a")
    with pytest.raises(ApiError, match="3 requests are still sending") as raised:
        await request(app, receive=unread)
    assert (raised.value.status, raised.value.code, unread.asked) == (503, "overloaded", 0)
    bodies[0].leave()
    await asyncio.wait(slow[:1])
    assert refusals(slow) == [(499, "client_gone")]
    bodies[1].add(b"b", last=True)
    await settle()
    assert work.at_work == 1
    work.end.set()
    await asyncio.gather(slow[1], request(app), request(app))  # there is room again
    bodies[2].leave()
    await asyncio.wait(slow)


async def test_bodies_that_come_or_are_worked_on_may_have_so_many_bytes_together() -> None:
    work = Work()
    app = Shedding(work, load=replace(load(waiting=5), body_bytes=10), keys=0)
    finished, begun, late = Body(), Body(b"1234"), Body(b"12")
    finished.add(b"1234", last=True)
    held = [request(app, receive=body) for body in (finished, begun)]
    await settle()
    refused = request(app, receive=late)
    await settle()
    assert (work.at_work, refused.done()) == (1, False)  # ten bytes
    late.add(b"3")
    with pytest.raises(ApiError, match="too large together") as raised:
        await refused
    assert (raised.value.status, raised.value.code) == (503, "overloaded")
    begun.leave()
    await asyncio.wait(held[1:])
    free = Body()
    free.add(b"123456", last=True)  # what was given up is free again
    other = request(app, receive=free)
    await settle()
    assert work.at_work == 2
    work.end.set()
    await asyncio.gather(held[0], other)
    whole = Body()
    whole.add(b"1234567890", last=True)
    await request(app, receive=whole)


@pytest.mark.parametrize("piece", [b"[[[[", b"{{{{", b",,,,", b"[{,["])
async def test_values_count_as_more_than_their_text(piece: bytes) -> None:
    app = Shedding(Work(), load=replace(load(waiting=0), body_bytes=500), keys=0)
    with pytest.raises(ApiError, match="too large together"):
        await request(app, receive=Body(piece))


async def test_one_key_can_not_take_the_bytes_of_all_others() -> None:
    work = Work()
    app = Shedding(work, load=replace(load(waiting=5), body_bytes=10, per_key=9), keys=2)
    bodies = {name: [Body(b"123"), Body(b"123")] for name in ("ann", "bob")}
    for name, own in bodies.items():
        with acting_for(name):
            first, second = (request(app, receive=body) for body in own)
        await settle()
        assert refusals([first, second]) == [(429, "key_busy")]
        assert not first.done()
        own[0].leave()
        await asyncio.wait([first])


async def test_the_app_gets_the_body_whole_and_then_what_comes_after_it() -> None:
    seen = list[Message]()

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    body = Body(b"one ", b"two ")
    body.add(b"three", last=True)
    body.leave()
    await request(Shedding(reads, load=load(waiting=0), keys=0), receive=body)
    assert seen == [
        {"type": "http.request", "body": b"one two three", "more_body": False},
        {"type": "http.disconnect"},
    ]


async def test_what_there_is_no_room_for_is_refused_before_its_body_is_read() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=0), keys=0)
    at_work = [request(app) for _ in range(2)]
    await settle()
    body = Body()
    with pytest.raises(ApiError, match="at work already"):
        await request(app, receive=body)
    assert body.asked == 0
    work.end.set()
    await asyncio.gather(*at_work)


# --- the share of a key ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_once", "per_key", "keys", "share"),
    [
        (512, 0, 0, None),  # one principal, who is everybody
        (512, 7, 0, None),
        (512, 0, 1, None),  # nobody to share with
        (512, 0, 2, 256),
        (512, 0, 9, 256),
        (3, 0, 2, 1),
        (1, 0, 2, 1),
        (512, 7, 1, 7),
        (512, 7, 2, 7),
    ],
)
def test_a_key_may_have_half_unless_it_is_alone_or_a_number_is_set(
    at_once: int, per_key: int, keys: int, share: int | None
) -> None:
    assert replace(load(waiting=0), at_once=at_once, per_key=per_key).share(keys) == share


async def test_one_key_is_refused_beyond_its_share_and_another_one_gets_in() -> None:
    work = Work()
    app = Shedding(work, load=load(waiting=5), keys=2)
    greedy = requests_of(app, "ann", 4)
    await settle()
    assert refusals(greedy) == [(429, "key_busy")] * 3
    modest = requests_of(app, "bob", 1)
    await settle()
    assert (work.at_work, refusals(modest)) == (2, [])
    work.end.set()
    await asyncio.wait([*greedy, *modest])
    await asyncio.gather(*requests_of(app, "ann", 1))  # what has ended does not count


async def test_a_body_that_still_comes_and_a_request_that_waits_count_in_the_share() -> None:
    work = Work()
    app = Shedding(work, load=replace(load(waiting=5), per_key=3), keys=1)
    with acting_for("ann"):
        slow = [request(app, receive=(body := Body(b"a")))]
        others = [request(app) for _ in range(2)]
        await settle()
        others.append(request(app))
        await settle()
        assert refusals(others) == [(429, "key_busy")]
        body.leave()
        await asyncio.wait(slow)
        others.append(request(app))
        await settle()
        assert len(refusals(others)) == 1  # it waits
    work.end.set()
    await asyncio.wait(others)
    assert len(refusals(others)) == 1


async def test_without_keys_one_may_take_all_places() -> None:
    work = Work()
    app = Shedding(work, load=replace(load(waiting=0), per_key=1), keys=0)
    requests = requests_of(app, "local", 2)
    await settle()
    assert work.at_work == 2
    work.end.set()
    await asyncio.gather(*requests)
