"""Reads long texts beside the event loop, and short ones in it.

Taking passages apart and comparing words takes about 1.5 ms for 1,000 characters. In the loop, the
longest that a request may have would keep all others waiting for a second. A thread costs a short
text more than it saves.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from shared.context import current, deadline_exceeded

# From so many characters on a text is read beside the loop: some 30 ms.
LONG = 20_000
# One thread: Python runs one at a time anyway, and each more takes turns from the loop.
_READER = ThreadPoolExecutor(1, "reader")

Read = TypeVar("Read")


async def read_aside(work: Callable[[], Read], characters: int) -> Read:
    """What `work` returns; it is pure and reads so many characters.

    Raises ApiError 504 where a long text is not read by the deadline of the request at hand.
    """
    if characters < LONG:
        return work()
    loop = asyncio.get_running_loop()
    left = current().deadline.remaining_ms() / 1000
    try:
        async with asyncio.timeout(left):
            return await loop.run_in_executor(_READER, copy_context().run, work)
    except TimeoutError:
        raise deadline_exceeded() from None
