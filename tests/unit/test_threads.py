"""The threads of searches: how many compute at once, and what does not wait for what."""

import asyncio
import threading
from contextvars import ContextVar

from services.retrieve.search.threads import compute

NAME: ContextVar[str] = ContextVar("name")


async def test_it_is_computed_in_the_callers_context() -> None:
    NAME.set("caller")
    assert await compute(NAME.get) == "caller"
    assert await compute(threading.get_ident) != threading.get_ident()


async def test_few_compute_at_once_and_all_come_to_their_turn() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.005)
        with lock:
            running -= 1

    await asyncio.gather(*(compute(work) for _ in range(40)))
    assert 1 <= most <= 4


async def test_no_search_waits_for_long_ones() -> None:
    end = threading.Event()
    try:
        long = [asyncio.ensure_future(compute(end.wait, long=True)) for _ in range(4)]
        async with asyncio.timeout(60):  # only so that a failure ends
            assert await compute(lambda: "done") == "done"
        assert not any(one.done() for one in long)
    finally:
        end.set()
    assert await asyncio.gather(*long) == [True] * 4
