"""The threads that searches compute in: few, however many searches there are.

Much of a search is Python, which one thread at a time can run. More threads than cores make no
search faster: they take the interpreter from each other in the middle of their work. With six of
them on two cores a search took a fifth more of the processor's time than with two.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

_Result = TypeVar("_Result")

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
# What is not Python (vectors, words, reading) does run side by side.
_POOL = ThreadPoolExecutor(max(2, min(4, _CORES)), "search")


async def compute(function: Callable[[], _Result], *, long: bool = False) -> _Result:
    """What a function gives, computed in one of these threads and in the caller's context.

    long: it may take much more than some milliseconds. It has a thread of all the process's others
    then, so that no search waits for it.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None if long else _POOL, copy_context().run, function)
