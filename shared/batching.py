"""Batches for one model: a bounded queue, a padded-token budget, one owner thread, no timer.

A request's items wait as one job. The owner thread takes the jobs in turn, so that a client with
thousands of texts holds up one with a single query for one batch at most. A batch is filled from
the job whose turn it is, longest items first, then with items of other jobs that need no more
padding than the batch has anyway. There is no delay timer: while the model runs, the next batch
gathers by itself. Items of a caller who has left are never run.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import Gauge, Histogram

from shared.context import current
from shared.errors import ApiError

QUEUED = Gauge("refdesk_batch_queued_items", "Items that wait for the model", ["model"])
BATCH_ITEMS = Histogram(
    "refdesk_batch_items",
    "Items in a batch",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_SECONDS = Histogram(
    "refdesk_batch_seconds", "Time that the model took for a batch", ["model"]
)


class Sized(Protocol):
    """Something to run, that knows its length in tokens."""

    def __len__(self) -> int:
        """Tokens, special ones included."""
        ...


Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class _Job(Generic[Item, Result]):
    """The items of one request: the places still to run, longest last, and the results so far."""

    def __init__(self, items: Sequence[Item], loop: asyncio.AbstractEventLoop) -> None:
        self.items = items
        self.todo = sorted(range(len(items)), key=lambda place: len(items[place]))
        self.results: dict[int, Result] = {}
        self.future: asyncio.Future[list[Result]] = loop.create_future()
        self.loop = loop
        self.queued = True

    def finish(self, error: BaseException | None = None) -> None:
        """Hand the results, or the error, to the waiting request."""
        self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: BaseException | None) -> None:
        if self.future.done():  # the caller has left
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result([self.results[place] for place in range(len(self.items))])


class Batcher(Generic[Item, Result]):
    """Runs items through one model in batches, on a thread of its own.

    run: called with a batch, gives one result per item, in order. name: the model, for metrics.
    batch_tokens: a batch ends when its longest item's length times its count would pass this;
    a single longer item still runs, alone. queue: how many items may wait; a request is always
    taken while nothing waits, however many items it has.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_tokens: int,
        queue: int,
    ) -> None:
        self._run = run
        self._batch_tokens = batch_tokens
        self._limit = queue
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._queued = QUEUED.labels(name)
        self._items = BATCH_ITEMS.labels(name)
        self._seconds = BATCH_SECONDS.labels(name)
        # A daemon, so that a process that is told to stop never hangs on a long inference.
        self._thread = threading.Thread(target=self._work, name=f"model-{name}", daemon=True)
        self._thread.start()

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Run the items and return their results in order.

        Raises ApiError 429 with Retry-After while the queue is full, 504 if the time is up, and
        whatever `run` raises. Cancelling it drops what has not run yet.
        """
        if not items:
            return []
        current().deadline.check()
        job = _Job[Item, Result](items, asyncio.get_running_loop())
        with self._changed:
            if self._waiting and self._waiting + len(items) > self._limit:
                raise ApiError(
                    429,
                    "queue_full",
                    f"{self._waiting} texts are waiting already; try again in a moment",
                    headers={"Retry-After": "1", "x-should-retry": "true"},
                )
            self._jobs.append(job)
            self._count(len(items))
            self._changed.notify()
        try:
            return await job.future
        finally:
            with self._changed:
                self._drop(job)

    def close(self) -> None:
        """Let the batch that runs end, and run no other."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _count(self, change: int) -> None:
        self._waiting += change
        self._queued.set(self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                batch = self._next_batch()
            items = [job.items[place] for job, place in batch]
            self._items.observe(len(items))
            try:
                with self._seconds.time():
                    results = dict(zip(batch, self._run(items), strict=True))
            except Exception as error:  # told to everyone who waits for this batch
                self._fail({job for job, _ in batch}, error)
                continue
            for (job, place), result in results.items():
                job.results[place] = result
            for job in {job for job, _ in batch}:
                if len(job.results) == len(job.items):
                    job.finish()

    def _next_batch(self) -> list[tuple[_Job[Item, Result], int]]:
        """The next items to run; called with the lock held, while there are jobs."""
        first = self._jobs[0]
        longest = len(first.items[first.todo[-1]])
        room = max(1, self._batch_tokens // max(1, longest))
        batch = []
        for job in self._jobs:
            while room and job.todo and len(job.items[job.todo[-1]]) <= longest:
                batch.append((job, job.todo.pop()))
                room -= 1
        self._count(-len(batch))
        self._jobs.rotate(-1)  # the next job's turn
        for job, _ in batch:
            if not job.todo:  # nothing of it waits any more
                self._drop(job)
        return batch

    def _drop(self, job: _Job[Item, Result]) -> None:
        """Take a job out of the queue, if it is still in it; called with the lock held."""
        if job.queued:
            job.queued = False
            self._jobs.remove(job)
            self._count(-len(job.todo))

    def _fail(self, jobs: set[_Job[Item, Result]], error: Exception) -> None:
        with self._changed:
            for job in jobs:
                self._drop(job)
        for job in jobs:
            job.finish(error)
