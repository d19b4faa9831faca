"""Looks after one attempt at a job: begins its work, ends it when asked, and writes down how it
ended."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from services.retrieve.jobs.leases import Lease, Leases, News
from services.retrieve.jobs.model import Failure, LeaseLostError, Work
from services.retrieve.jobs.rows import dumped, failure_of
from services.retrieve.jobs.run import Attempt
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from shared.retry_after import retry_after_s
from shared.telemetry import get_logger

log = get_logger(__name__)

Reason = Literal["cancel", "shutdown", "lost"]
# Of errors that may pass: the job is tried again.
PASSING = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """What is borne before a job is given up.

    tries: failures in a row that may pass, at one cursor. pause_s: before the second try at most;
    doubled before each further one, up to max_pause_s; a random part of it is waited, so that what
    recovers is not run over by all at once. retry_after_s: the longest time to wait that another
    service may ask for. deaths: processes in a row that ended at one cursor. grace_s: what a
    cancelled work has to end. settle_s: what all of them have when the process stops.
    """

    tries: int = 20
    pause_s: float = 1.0
    max_pause_s: float = 60.0
    retry_after_s: float = 600.0
    deaths: int = 3
    grace_s: float = 0.8
    settle_s: float = 2.5

    def wait_s(self, tries: int, error: ApiError | None) -> float:
        """Seconds to wait after so many failures ("full jitter", AWS Architecture Blog, 2015)."""
        most = min(self.max_pause_s, self.pause_s * 2 ** min(tries - 1, 30))
        jitter = random.uniform(0, most)  # noqa: S311 - no secret
        asked = retry_after_s(error.headers.get("Retry-After", "0")) if error else 0.0
        if not asked > 0:  # no number, too
            return jitter
        return max(min(asked, self.retry_after_s), jitter)


class Attendant:
    """Looks after one lease. Used in one event loop."""

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        work: Work,
        patience: Patience,
        threads: Executor,
        sure_s: float,
    ) -> None:
        self._leases = leases
        self._lease = lease
        self._work = work
        self._patience = patience
        self._threads = threads
        self._run = Attempt(leases, lease, threads, lambda: self.stop("cancel"), sure_s)
        self._stopping = asyncio.Event()
        self._reason: Reason | None = None
        self._task: asyncio.Task[str] | None = None
        self.attempt = lease.job.attempt

    def stop(self, reason: Reason) -> None:
        """End the work; the first reason counts, but for a job that another has by now."""
        if self._reason is None or reason == "lost":
            self._reason = reason
        self._stopping.set()

    async def show_life(self) -> None:
        """Tell the catalogue that this job is worked on, and hear whether it shall be."""
        try:
            await self._run.tell()
        except LeaseLostError:
            self.stop("lost")
        except ApiError as error:
            log.warning("job_beat_failed", job=self._lease.job.id, reason=error.message)

    async def attend(self) -> None:
        """Do the work, and write down how it ended. Raises nothing."""
        job = self._lease.job
        log.info("job_started", job=job.id, kind=job.kind, corpus=job.corpus, attempt=job.attempt)
        self._task = asyncio.create_task(self._begin())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({self._task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=self._patience.grace_s)
        self._run.lose()
        await self._settle(self._task)

    async def left(self) -> None:
        """Return once the work has really ended, which may be after its job is over."""
        if self._task is not None and not self._task.done():
            log.error("job_does_not_end", job=self._lease.job.id, kind=self._lease.job.kind)
            await asyncio.wait({self._task})

    async def _begin(self) -> str:
        """The work, under the job's name in logs and calls; its result as JSON."""
        enter(RequestContext(self._lease.job.id, Deadline(float("inf")), NOBODY))
        return dumped(await self._work(self._run)) or "{}"

    async def _settle(self, task: asyncio.Task[str]) -> None:
        """Write down how the work ended; again and again while the catalogue does not answer."""
        news = await self._run.rest()
        end = self._end(task)
        if end is None:
            log.warning("job_lost", job=self._lease.job.id, attempt=self.attempt)
            return
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._threads, end, news)
            except LeaseLostError:
                log.warning("job_lost", job=self._lease.job.id, attempt=self.attempt)
                return
            except ApiError as error:
                log.warning("job_end_not_written", job=self._lease.job.id, reason=error.message)
                await asyncio.sleep(1)
            else:
                return

    def _end(self, task: asyncio.Task[str]) -> Callable[[News], None] | None:
        """What is to be written about a work that ended, or was ended; None of one that another
        worker has."""
        ended = task.done() and not task.cancelled()
        error = task.exception() if ended else None
        if self._reason == "lost" or isinstance(error, LeaseLostError):
            return None
        if ended and error is None:
            self._log("succeeded")
            return partial(self._finish, "succeeded", result=task.result())
        if self._reason == "cancel":
            self._log("cancelled")
            return partial(self._finish, "cancelled")
        if self._reason == "shutdown":
            self._log("put back")
            return partial(self._leases.put_back, self._lease)
        return self._end_of_failed(error)

    def _end_of_failed(self, error: BaseException | None) -> Callable[[News], None]:
        told = error if isinstance(error, ApiError) else None
        if told is None and not isinstance(error, ConnectionError | TimeoutError):
            log.error("job_broke", job=self._lease.job.id, exc_info=error)
            failure = Failure(
                f"refdesk failed on this job; its log has the cause under id {self._lease.job.id}",
                "internal_error",
                "internal_error",
            )
            return partial(self._finish, "failed", error=failure)
        failure = failure_of(told or ApiError(503, "unreachable", f"a connection failed: {error}"))
        tries = self._run.tries + 1
        if (told is not None and told.status not in PASSING) or tries >= self._patience.tries:
            self._log("failed", code=failure.code)
            return partial(self._finish, "failed", error=failure)
        wait_s = self._patience.wait_s(tries, told)
        self._log("to be tried again", code=failure.code, wait_s=round(wait_s, 1))

        def again(news: News) -> None:
            self._leases.try_again(self._lease, news, wait_s, failure, tries)

        return again

    def _finish(
        self,
        state: Literal["succeeded", "failed", "cancelled"],
        news: News,
        *,
        result: str | None = None,
        error: Failure | None = None,
    ) -> None:
        self._leases.finish(self._lease, news, state, result, error)

    def _log(self, how: str, **more: object) -> None:
        log.info("job_ended", job=self._lease.job.id, how=how, attempt=self.attempt, **more)
