"""Processes that do one piece of work at a time each, so that a hostile file costs itself alone.

A process that takes too long or too much memory, or that a file crashes, is killed and another one
takes its place; each is replaced after some hundreds of pieces, too. They are started afresh, never
forked from the service: they have none of its sockets and none of its environment, and they end
with it, even where it is killed.

pebble's pool was tried for this. It starts its processes by multiprocessing, which imports the
service's main module into each of them, and it needs three threads to do what an event loop does.
"""

import asyncio
import os
import pickle
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from services.retrieve.corpus.parsing.worker import LENGTH
from shared.errors import ApiError

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_BY_DEFAULT = 4
_PIECES_EACH = 300
_START_SECONDS = 60.0
_MOST_READ = 1024 * 1024  # bytes at a time
_MOST_ANSWERED = 256 * 1024 * 1024  # bytes of a result
# How a process ends that an allocator, or the system, has refused memory.
_OUT_OF_MEMORY = (-signal.SIGABRT, -signal.SIGKILL, -signal.SIGTRAP, -signal.SIGILL)

_log = structlog.get_logger()


class _Worker:
    """One process, and how many pieces it has done."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.done = 0

    async def ask(self, message: bytes) -> tuple[Any, ...]:
        """Send a piece of work and wait for what comes of it.

        Raises ConnectionError, IncompleteReadError where the process ends, ValueError where the
        result is too large.
        """
        pipe = self.process.stdin
        assert pipe is not None  # noqa: S101 - for mypy
        pipe.write(LENGTH.pack(len(message)))
        pipe.write(message)
        await pipe.drain()
        return await self.answer()

    async def answer(self) -> tuple[Any, ...]:
        """The next thing that the process says."""
        pipe = self.process.stdout
        assert pipe is not None  # noqa: S101 - for mypy
        length = LENGTH.unpack(await pipe.readexactly(LENGTH.size))[0]
        if length > _MOST_ANSWERED:
            raise ValueError(f"a result of {length} bytes")
        answer: tuple[Any, ...] = pickle.loads(  # noqa: S301 - from a process of our own
            await pipe.readexactly(length)
        )
        return answer

    async def kill(self) -> int:
        """End the process at once; how it ended."""
        with suppress(ProcessLookupError):
            self.process.kill()
        pipe = self.process.stdout
        # A pipe that is full of what nobody waits for would keep `wait` waiting.
        while pipe is not None and await pipe.read(_MOST_READ):
            pass
        return await self.process.wait()


class Workers:
    """At most `count` processes (0: as many as there are cores, at most 4), each with at most
    `memory_mb` MiB of memory; they start when they are first needed.

    Belongs to the event loop in which it is first used.
    """

    def __init__(self, count: int = 0, memory_mb: int = 1024) -> None:
        self._count = count or min(_MOST_BY_DEFAULT, os.cpu_count() or 1)
        self._memory_mb = memory_mb
        self._free = asyncio.Semaphore(self._count)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    @property
    def count(self) -> int:
        """How many pieces of work run at a time; more wait for their turn."""
        return self._count

    async def run(
        self, work: Callable[[Task], Result], task: Task, *, seconds: float, param: str
    ) -> Result:
        """What `work(task)` gives; `work` must be a function that can be imported by its name.

        seconds: for the work itself, not for waiting until a process is free. Raises what ApiError
        the work raises, or ApiError 422 naming `param`: `file_too_slow`, `file_too_large` (memory,
        or a result over 256 MiB), `file_crashes_parser`; 503 where no process starts or all are
        closed. When cancelled, the work is killed.
        """
        message = pickle.dumps((work, task), protocol=pickle.HIGHEST_PROTOCOL)
        async with self._free:
            worker = self._idle.pop() if self._idle else await self._start()
            try:
                async with asyncio.timeout(seconds):
                    answer = await worker.ask(message)
            except TimeoutError:
                raise ApiError(
                    422,
                    "file_too_slow",
                    f"{param} takes over {seconds:g} seconds to read",
                    param=param,
                ) from None
            except (asyncio.IncompleteReadError, ConnectionError):
                if self._closed:
                    raise _unavailable("the service is stopping") from None
                raise _ended(await worker.kill(), param) from None
            except ValueError as error:
                raise _too_large(f"{param} gives {error}", param) from None
            else:
                worker.done += 1
                if worker.done < _PIECES_EACH and answer[0] != "memory":
                    self._idle.append(worker)
            finally:
                if worker not in self._idle:
                    self._all.discard(worker)
                    await asyncio.shield(worker.kill())
        result: Result = _told(answer, self._memory_mb, param)
        return result

    async def close(self) -> None:
        """End all processes, those at work too."""
        self._closed = True
        idle, self._idle = self._idle, []
        busy = self._all.difference(idle)
        for worker in busy:  # whoever waits for its answer reads its pipe, and sees it end
            with suppress(ProcessLookupError):
                worker.process.kill()
        self._all.clear()
        await asyncio.gather(
            *(worker.kill() for worker in idle), *(worker.process.wait() for worker in busy)
        )

    async def _start(self) -> _Worker:
        if self._closed:
            raise _unavailable("the service is stopping")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.retrieve.corpus.parsing.worker", str(self._memory_mb)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            start_new_session=True,  # a Ctrl-C is the service's to answer
            env={
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "PYTHONDONTWRITEBYTECODE": "1",
                "LC_ALL": "C.UTF-8",
                # One thread each: there are as many processes as there should be threads.
                **dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
                "OPENBLAS_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        worker = _Worker(process)
        self._all.add(worker)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker.answer()
        except (TimeoutError, asyncio.IncompleteReadError):
            self._all.discard(worker)
            code = await worker.kill()
            raise _unavailable(f"no process to read files starts (it ended with {code})") from None
        except BaseException:
            self._all.discard(worker)
            await asyncio.shield(worker.kill())
            raise
        return worker


def _told(answer: tuple[Any, ...], memory_mb: int, param: str) -> Any:
    """The result of a piece of work. Raises ApiError where it has none."""
    match answer:
        case ("done", result):
            return result
        case ("refused", int(status), str(code), str(message), at):
            raise ApiError(status, code, message, param=at)
        case ("memory",):
            raise _too_large(f"{param} takes over {memory_mb} MiB of memory to read", param)
        case _:
            _log.error("a file met a defect of its parser", param=param, traceback=answer[-1])
            raise _crashed(param)


def _unavailable(message: str) -> ApiError:
    return ApiError(503, "parser_unavailable", message)


def _ended(code: int, param: str) -> ApiError:
    if code in _OUT_OF_MEMORY:
        return _too_large(f"{param} takes more memory to read than a file may", param)
    return _crashed(param)


def _too_large(message: str, param: str) -> ApiError:
    return ApiError(422, "file_too_large", message, param=param)


def _crashed(param: str) -> ApiError:
    return ApiError(
        422,
        "file_crashes_parser",
        f"{param} crashes what reads it: it may be damaged; convert it and send it again",
        param=param,
    )
