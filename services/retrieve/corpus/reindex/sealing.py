"""Sealing a store from a coroutine."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import TypeVar

from services.retrieve.stores.base import CorpusStore

Result = TypeVar("Result")


@asynccontextmanager
async def sealed(store: CorpusStore) -> AsyncIterator[ThreadPoolExecutor]:
    """`store.sealed()`, with a thread for whatever stores have to do meanwhile.

    Who writes waits in one of the event loop's own threads, of which there are few: with all of
    them waiting for the seal's end, nothing that leads there could be done in them.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    with ThreadPoolExecutor(1, "seal") as threads:
        seal = ExitStack()
        try:
            await to_the_end(loop.run_in_executor(threads, seal.enter_context, store.sealed()))
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            yield threads
        except BaseException as error:
            leave = loop.run_in_executor(threads, seal.__exit__, type(error), error, None)
            await to_the_end(leave)
            raise
        await to_the_end(loop.run_in_executor(threads, seal.close))


async def to_the_end(work: asyncio.Future[Result]) -> Result:
    """The result of what can't be stopped half-way: a cancel that comes meanwhile is not raised."""
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            continue
    return work.result()
