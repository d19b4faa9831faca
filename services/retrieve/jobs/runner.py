"""Does the jobs: takes queued ones, looks after those that run, and misses workers that died."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from uuid import uuid4

from services.retrieve.jobs.attend import Attendant, Patience
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.leases import Lease, Leases, Sign
from services.retrieve.jobs.metrics import QUEUED, RUNNING
from services.retrieve.jobs.model import Work
from services.retrieve.jobs.stillness import Stillness
from shared.errors import ApiError
from shared.telemetry import get_logger

TURN_S = 0.7  # between two looks at the catalogue, and two signs of life of a job
_LEASE_S = 15.0  # without a sign of life, after which a worker is dead
_RECEIVING_S = 600.0  # the same of a payload that comes in
_PRUNE_S = 3600.0
_THREADS = 4

log = get_logger(__name__)
Result = TypeVar("Result")


class JobRunner:
    """Does jobs of the kinds that it has works for, at most `workers` at once and of a corpus one
    after the other (`model.lane_of`). One for each process; used in one event loop.

    A cancelled job is over within 2 seconds. A job whose process died is taken up from its last
    checkpoint: at once when this process starts, where no other can use the catalogue, else when
    its lease of 15 seconds has run out. history_days: how long jobs are kept that are over.
    turn_s: between two looks at the catalogue.
    """

    def __init__(
        self,
        jobs: Jobs,
        works: Mapping[str, Work],
        *,
        workers: int = 2,
        history_days: int = 30,
        lease_s: float = _LEASE_S,
        turn_s: float = TURN_S,
        patience: Patience | None = None,
    ) -> None:
        self._jobs = jobs
        self._works = works
        self._workers = workers
        self._history_days = history_days
        self._lease_s = lease_s
        self._patience = patience or Patience()
        self._leases = Leases(jobs.database)
        self._name = uuid4().hex
        # Of their own: searches may keep all of the loop's threads busy.
        self._threads = ThreadPoolExecutor(_THREADS, "jobs")
        self._running: dict[int, Attendant] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn_s = turn_s
        self._signs, self._waits = Stillness(2 * turn_s), Stillness(2 * turn_s)
        self._kinds = set(works)  # that were counted
        self._answered_at = time.monotonic()
        # By what does not succeed just now.
        self._trouble: dict[Callable[[], Awaitable[None]], str] = {}
        self._pruned_at = float("-inf")
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what the last process of a catalogue of this process's own left behind, and
        begin to take jobs."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._jobs.listen(wake)
        if self._jobs.database.exclusive:
            try:
                for sign in await self._do(self._leases.signs):
                    await self._take_up(sign)
            except ApiError as error:  # they are taken up when their leases have run out
                log.warning("jobs_wait", reason=error.message)
        self._loops = [
            asyncio.create_task(self._go_on(self._turn, self._wake)),
            # Of its own, so that a large payload that goes keeps no cancelled job waiting.
            asyncio.create_task(self._go_on(self._clean, asyncio.Event())),
        ]

    def catalogue(self) -> str:
        """Whether the catalogue does what the jobs need, for people: `answers`, or why not."""
        silent_s = time.monotonic() - self._answered_at
        if not self._trouble and silent_s > self._lease_s:
            return f"the catalogue has not answered for {silent_s:.0f} s"
        return next(iter(self._trouble.values()), "answers")

    async def close(self) -> None:
        """Give what runs back to the queue, from where it is to be gone on with; within about two
        seconds."""
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        for attendant in self._running.values():
            attendant.stop("shutdown")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._patience.settle_s)
            for task in late:
                task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _go_on(self, turn: Callable[[], Awaitable[None]], wake: asyncio.Event) -> None:
        while True:
            try:
                await turn()
                self._trouble.pop(turn, None)
            except ApiError as error:  # the catalogue does not answer; it will again
                self._trouble[turn] = error.message
                log.warning("jobs_wait", reason=error.message)
            except Exception as error:
                # Whatever it was, jobs that nobody looks after would be worse.
                self._trouble[turn] = (
                    f"refdesk failed over the catalogue ({type(error).__name__}), and jobs wait: "
                    "its log has the cause"
                )
                log.exception("jobs_turn_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._turn_s):
                    await wake.wait()
            wake.clear()

    async def _turn(self) -> None:
        await asyncio.gather(*(one.show_life() for one in list(self._running.values())))
        await self._miss_the_dead()
        await self._take_jobs()

    async def _clean(self) -> None:
        await self._count_the_queue()
        while await self._do(self._leases.sweep):
            pass
        now = time.monotonic()
        if now - self._pruned_at > _PRUNE_S:
            await self._do(self._jobs.prune, self._history_days)
            self._pruned_at = now

    async def _count_the_queue(self) -> None:
        queued = await self._do(self._leases.queued)
        self._kinds |= queued.keys()
        for kind in self._kinds:
            QUEUED.labels(kind).set(queued.get(kind, 0))
        unknown = sorted(queued.keys() - self._works.keys())
        if unknown:
            left = await self._do(self._leases.leave_to_newer, unknown)
            if left:
                log.warning("jobs_of_unknown_kinds", kinds=unknown)

    async def _miss_the_dead(self) -> None:
        signs = await self._do(self._leases.signs)
        still = self._signs.seconds(time.monotonic(), {sign.number: sign for sign in signs})
        for sign in signs:
            attendant = self._running.get(sign.number)
            if attendant is not None and attendant.attempt == sign.attempt:
                continue
            if still[sign.number] >= self._patience_with(sign):
                await self._take_up(sign)

    def _patience_with(self, sign: Sign) -> float:
        """Seconds without another sign after which nobody is there any more."""
        if sign.receiving:
            return _RECEIVING_S
        # One of this process that nobody attends to: its end could not be written.
        return 0.0 if sign.worker == self._name else self._lease_s

    async def _take_up(self, sign: Sign) -> None:
        if await self._do(self._leases.take, sign, self._patience.deaths):
            log.warning("job_of_a_dead_worker", number=sign.number, attempt=sign.attempt)

    async def _take_jobs(self) -> None:
        waiting = await self._do(self._leases.waiting, list(self._works))
        waited = self._waits.seconds(time.monotonic(), {one.number: one for one in waiting})
        for one in waiting:
            if len(self._tasks) >= self._workers:
                return
            if waited[one.number] >= one.wait_s and one.number not in self._running:
                lease = await self._do(self._leases.claim, one, self._name)
                if lease is not None:
                    self._begin(lease)

    def _begin(self, lease: Lease) -> None:
        work = self._works[lease.job.kind]
        sure_s = self._lease_s / 3  # the rest of it is for the write that follows
        attendant = Attendant(self._leases, lease, work, self._patience, self._threads, sure_s)
        self._running[lease.number] = attendant
        RUNNING.labels(lease.job.kind).inc()
        task = asyncio.create_task(self._attend(lease, attendant))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, lease: Lease, attendant: Attendant) -> None:
        try:
            await attendant.attend()
        finally:
            del self._running[lease.number]
            RUNNING.labels(lease.job.kind).dec()
        self._wake.set()
        await attendant.left()  # a work that does not end keeps its place
        self._wake.set()

    async def _do(self, function: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(self._threads, function, *arguments)
        self._answered_at = time.monotonic()
        return done
