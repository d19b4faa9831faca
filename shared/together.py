"""Work side by side, of which none is left running when one fails: unlike `asyncio.gather`."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")


async def together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all, in order. The first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def both(
    first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]
) -> tuple[First, Second]:
    """The results of two, as `together` gives them."""
    results: list[Any] = await together([first, second])
    return results[0], results[1]
