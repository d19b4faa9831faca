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
from functools import partial
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# What is not Python (vectors, words, reading) does run side by side.
_POOL = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2)), "search")


async def compute(
    function: Callable[_Parameters, _Result],
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """What a function gives, in one of these threads and in the caller's context.

    For work of milliseconds: what takes longer would keep all searches waiting.
    """
    run = partial(copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_POOL, run)
