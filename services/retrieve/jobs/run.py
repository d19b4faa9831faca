"""One attempt at a job, as its work sees it, and the telling of what it did to the catalogue."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar

from services.retrieve.catalogue.database import PASSING_CODES
from services.retrieve.jobs.leases import Lease, Leases, News
from services.retrieve.jobs.model import Item, Job, LeaseLostError, Verdict
from services.retrieve.jobs.rates import Window
from services.retrieve.jobs.rows import dumped
from shared.errors import ApiError

# A checkpoint is written when the last one is so long ago, or has so many verdicts with it: some
# jobs have one for every document, and a transaction each would cost more than their work.
_TOLD_EVERY_S = 0.5
_TOLD_VERDICTS = 1000
_UNREACHABLE_PAUSE_S = 0.5

Result = TypeVar("Result")


class Attempt:
    """See `model.Run`, which this is. Used in one event loop.

    on_cancel: called when a sign of life was answered with the wish to end the job. sure_s: for so
    many seconds after a sign of life nobody else takes the job.
    """

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        threads: Executor,
        on_cancel: Callable[[], None],
        sure_s: float,
    ) -> None:
        self._leases = leases
        self.lease = lease
        self._threads = threads
        self._on_cancel = on_cancel
        self._cursor = lease.job.cursor
        self.tries = lease.tries
        self._news = News()
        self._done = lease.job.progress
        self._window = Window(time.monotonic())
        self._told_at = float("-inf")
        self._sure_s = sure_s
        # Since the claim nobody knows how long this process may have stood still.
        self._sure_until = float("-inf")
        self._lost = False
        self.cancelled = False
        self._telling = asyncio.Lock()
        self._tellings: set[asyncio.Task[None]] = set()

    @property
    def job(self) -> Job:
        """The job as it was when this attempt began."""
        return self.lease.job

    @property
    def cursor(self) -> Mapping[str, Any] | None:
        """What the last checkpoint left."""
        return self._cursor

    async def assure(self) -> None:
        """See `Run.assure`."""
        if self._lost:
            raise LeaseLostError
        if time.monotonic() > self._sure_until:
            await self._patiently(self.tell)

    async def items(self, after: int, most: int) -> list[Item]:
        """See `Run.items`."""
        return await self._patiently(
            lambda: self._in_thread(self._leases.items, self.lease, after, most)
        )

    async def checkpoint(
        self,
        cursor: Mapping[str, Any],
        *,
        documents: int = 0,
        chunks: int = 0,
        bytes: int = 0,  # noqa: A002 - the field's name over the wire
        verdicts: Sequence[Verdict] = (),
        total_documents: int | None = None,
        total_bytes: int | None = None,
        stage: str | None = None,
    ) -> None:
        """See `Run.checkpoint`."""
        if self._lost:
            raise LeaseLostError
        dumped(cursor)  # what can't be kept is the work's fault, and is told there
        if cursor != self._cursor:
            self.tries = 0
        self._cursor = dict(cursor)
        now = News(
            cursor=self._cursor,
            documents=documents,
            chunks=chunks,
            bytes=bytes,
            verdicts=verdicts,
            total_documents=total_documents,
            total_bytes=total_bytes,
            stage=stage,
        )
        self._window.add(time.monotonic(), documents, bytes)
        self._count(now)
        self._news = _both(self._news, now)
        due = time.monotonic() - self._told_at >= _TOLD_EVERY_S
        if due or stage is not None or len(self._news.verdicts) >= _TOLD_VERDICTS:
            await self._patiently(self.tell)

    async def tell(self) -> None:
        """Give a sign of life, with what is new. Raises `LeaseLostError`, or ApiError where the
        catalogue can't be reached; what is new is then told the next time."""
        # In a task of its own, which ends by itself: what is cut off in the middle would have been
        # told, and be told again.
        task = asyncio.create_task(self._tell())
        self._tellings.add(task)
        task.add_done_callback(self._tellings.discard)
        await asyncio.shield(task)

    async def rest(self) -> News:
        """What was not told yet, once nothing is being told: for the end of the attempt, which
        tells it. A sign of life that is given before the end is written tells nothing more."""
        while self._tellings:
            await asyncio.wait(set(self._tellings))
        news, self._news = self._rated(), News()
        return news

    def lose(self) -> None:
        """Let no checkpoint count from now on."""
        self._lost = True

    async def _tell(self) -> None:
        async with self._telling:
            news, self._news = self._rated(), News()
            self._told_at = told_at = time.monotonic()
            try:
                cancelling = await self._in_thread(self._leases.tell, self.lease, news)
            except LeaseLostError:
                self._lost = True
                raise
            except BaseException:
                self._news = _both(news, self._news)
                raise
            self._sure_until = told_at + self._sure_s
            if cancelling:
                self.cancelled = True
                self._on_cancel()

    def _rated(self) -> News:
        done = self._done
        rates = self._window.rates(
            time.monotonic(),
            _left(done.total_documents, done.documents),
            _left(done.total_bytes, done.bytes),
        )
        return replace(self._news, rates=rates)

    def _count(self, news: News) -> None:
        done = self._done
        self._done = replace(
            done,
            documents=done.documents + news.documents,
            bytes=done.bytes + news.bytes,
            total_documents=_latest(done.total_documents, news.total_documents),
            total_bytes=_latest(done.total_bytes, news.total_bytes),
        )

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Do it, and again for as long as the catalogue does not answer or its disk takes nothing:
        the work is no worse for that, and its end could not be written either."""
        while True:
            try:
                return await call()
            except ApiError as error:
                if error.code not in PASSING_CODES:
                    raise
            await asyncio.sleep(_UNREACHABLE_PAUSE_S)


def _both(first: News, then: News) -> News:
    """What was done in all: counts add up, of all else the later one holds."""
    return News(
        cursor=then.cursor if then.any else first.cursor,
        documents=first.documents + then.documents,
        chunks=first.chunks + then.chunks,
        bytes=first.bytes + then.bytes,
        verdicts=[*first.verdicts, *then.verdicts],
        total_documents=_latest(first.total_documents, then.total_documents),
        total_bytes=_latest(first.total_bytes, then.total_bytes),
        stage=then.stage if then.stage is not None else first.stage,
    )


def _latest(before: int | None, now: int | None) -> int | None:
    return before if now is None else now


def _left(total: int | None, done: int) -> int | None:
    return None if total is None else total - done
