"""Batches for one model: a bounded queue, a padded-token budget, one owner thread, no timer.

A request's items wait as one job. The owner thread takes the jobs in turn, but a short one, such as
a single query, as soon as the batch that runs has ended, however many clients with thousands of
texts are in line. A batch is filled from the job whose turn it is, longest items first, then with
items of other jobs of like length. There
is no delay timer: while the model runs, the next batch gathers by itself. Items of a caller who has
left are never run.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict
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

# Texts up to this length are alike; of longer ones, those up to twice as long. So a query never
# waits for a page, nor do singles of many lengths each make a batch.
_ALIKE_TOKENS = 32
_OUT_OF_TURN = 4  # requests of no more than that go first, so often in a row while others wait
_LONGEST_WAIT_S = 30  # that a caller is told
QUEUE_SHARES = 4  # of the queue: what one request counts for at most


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
        self.lengths = [max(1, len(item)) for item in items]
        self.todo = sorted(range(len(items)), key=self.lengths.__getitem__)
        self.todo_tokens = sum(self.lengths)
        self.results: dict[int, Result] = {}
        self.future: asyncio.Future[list[Result]] = loop.create_future()
        self.loop = loop

    @property
    def longest(self) -> int:
        """Tokens of the longest item still to run."""
        return self.lengths[self.todo[-1]]

    def take(self) -> int:
        """The place of the longest item still to run, which is run now."""
        place = self.todo.pop()
        self.todo_tokens -= self.lengths[place]
        return place

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


def _stopping() -> ApiError:
    message = "the model is being stopped; send the request again"
    return ApiError(503, "stopping", message, headers={"Retry-After": "1"})


def _tokens(batch: Sequence[tuple[_Job[Item, Result], int]]) -> int:
    return sum(job.lengths[place] for job, place in batch)


class Batcher(Generic[Item, Result]):
    """Runs items through one model in batches, on a thread of its own.

    run: called with a batch, gives one result per item, in order. name: the model, for metrics.
    batch_tokens: a batch ends when its longest item's length times its count would pass this;
    a single longer item still runs, alone. queue_tokens: a request is taken while fewer tokens than
    this wait, however many it has itself. Of one request, a quarter of the queue counts at most, so
    that a single large one, which others overtake, does not shut them out.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_tokens: int,
        queue_tokens: int,
    ) -> None:
        self._run = run
        self._batch_tokens = batch_tokens
        self._limit = queue_tokens
        # In the order of their turns; a job may leave from anywhere.
        self._jobs: OrderedDict[_Job[Item, Result], None] = OrderedDict()
        self._out_of_turn = 0  # short jobs that went first since another had its turn
        self._waiting = 0
        self._waiting_tokens = 0
        # What the model did of late: each batch counts half as much as the next.
        self._recent_tokens = self._recent_seconds = 0.0
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
            if self._closed:
                raise _stopping()
            self._require_room()
            self._jobs[job] = None
            self._count(len(items), job.todo_tokens)
            self._changed.notify()
        try:
            return await job.future
        finally:
            with self._changed:
                self._drop(job)

    def require_room(self) -> None:
        """Raise the ApiError 429 that `submit` would raise now, before items are made for it."""
        with self._changed:
            self._require_room()

    def close(self) -> None:
        """Let the batch that runs end, and run no other: those who still wait get an ApiError."""
        with self._changed:
            self._closed = True
            left = list(self._jobs)
            for job in left:
                self._drop(job)
            self._changed.notify()
        for job in left:
            job.finish(_stopping())
        self._thread.join()

    def _require_room(self) -> None:
        """Called with the lock held."""
        if self._waiting_tokens < self._limit:
            return
        share = max(1, self._limit // QUEUE_SHARES)
        if sum(min(job.todo_tokens, share) for job in self._jobs) < self._limit:
            return
        wait = self._waiting_tokens * self._recent_seconds / max(1.0, self._recent_tokens)
        seconds = min(max(math.ceil(wait), 1), _LONGEST_WAIT_S)
        raise ApiError(
            429,
            "queue_full",
            f"{self._waiting_tokens} tokens are waiting already; try again in {seconds} s",
            headers={"Retry-After": str(seconds), "x-should-retry": "true"},
        )

    def _count(self, items: int, tokens: int) -> None:
        self._waiting += items
        self._waiting_tokens += tokens
        self._queued.set(self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                batch = self._next_batch()
            self._run_batch(batch)
            del batch  # while the thread waits, nothing keeps the last callers' results

    def _run_batch(self, batch: list[tuple[_Job[Item, Result], int]]) -> None:
        items = [job.items[place] for job, place in batch]
        self._items.observe(len(items))
        jobs = {job for job, _ in batch}
        started = time.perf_counter()
        try:
            results = dict(zip(batch, self._run(items), strict=True))
        except BaseException as error:  # told to everyone who waits: the thread must not die
            self._fail(jobs, error)
            return
        seconds = time.perf_counter() - started
        self._seconds.observe(seconds)
        self._recent_tokens = self._recent_tokens / 2 + _tokens(batch)
        self._recent_seconds = self._recent_seconds / 2 + seconds
        for (job, place), result in results.items():
            job.results[place] = result
        for job in jobs:
            if len(job.results) == len(job.items):
                job.finish()

    def _next_batch(self) -> list[tuple[_Job[Item, Result], int]]:
        """The next items to run; called with the lock held, while there are jobs."""
        first = self._next_job()
        reach = max(_ALIKE_TOKENS, 2 * first.longest)
        batch: list[tuple[_Job[Item, Result], int]] = []
        padded = 0
        for job in (first, *(job for job in self._jobs if job is not first)):
            while job.todo and (length := job.longest) <= reach:
                wider = max(padded, length)
                if batch and wider * (len(batch) + 1) > self._batch_tokens:
                    break
                padded = wider
                batch.append((job, job.take()))
            if padded * (len(batch) + 1) > self._batch_tokens:
                break  # no item of any job fits
        self._count(-len(batch), -_tokens(batch))
        self._jobs.move_to_end(first)  # the next job's turn
        for job, _ in batch:
            if not job.todo:  # nothing of it waits any more
                self._drop(job)
        return batch

    def _next_job(self) -> _Job[Item, Result]:
        """The job that a batch is filled from first."""
        in_turn = next(iter(self._jobs))
        if self._out_of_turn < _OUT_OF_TURN and in_turn.todo_tokens > _ALIKE_TOKENS:
            for job in self._jobs:
                if job.todo_tokens <= _ALIKE_TOKENS:
                    self._out_of_turn += 1
                    return job
        self._out_of_turn = 0
        return in_turn

    def _drop(self, job: _Job[Item, Result]) -> None:
        """Take a job out of the queue, if it is still in it; called with the lock held."""
        if job in self._jobs:
            del self._jobs[job]
            self._count(-len(job.todo), -job.todo_tokens)

    def _fail(self, jobs: set[_Job[Item, Result]], error: BaseException) -> None:
        with self._changed:
            for job in jobs:
                self._drop(job)
        for job in jobs:
            job.finish(error)
