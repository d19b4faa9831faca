"""The jobs that there are: how they come in, are looked at, and are called off."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.metrics import count_end
from services.retrieve.jobs.model import (
    FINAL,
    Event,
    Item,
    Job,
    JobState,
    Verdict,
    VerdictStatus,
)
from services.retrieve.jobs.receive import Room, receive
from services.retrieve.jobs.rows import changed, job_of, storable, verdict_of
from services.retrieve.jobs.tables import JOBS, VERDICTS
from shared.errors import ApiError

# A catalogue that is locked or far away is waited for, up to half a minute, and payloads may be
# large. Whoever waits does so in these threads, and keeps no search or document waiting; nor does
# a payload that comes in keep those who only ask.
_ASKING, _TAKING_IN = 8, 4
_PRUNED_AT_ONCE = 1  # in a transaction: each may have many thousands of verdicts

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Jobs:
    """Jobs in a catalogue. Methods are synchronous and may be called from any thread, in an event
    loop by `ask`; all raise what `CatalogueDatabase.begin` does. The payload of a job is removed
    once it is over."""

    def __init__(self, database: CatalogueDatabase, *, waiting_mb: int = 4096) -> None:
        """waiting_mb: MiB of payloads that may wait in all."""
        self.database = database
        self._room = Room(waiting_mb << 20)
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._changing = threading.Lock()
        self._asking = ThreadPoolExecutor(_ASKING, "jobs-ask")
        self._taking_in = ThreadPoolExecutor(_TAKING_IN, "jobs-take-in")

    async def ask(
        self, method: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs
    ) -> Result:
        """Call one of the methods in a thread that is there for that."""
        return await _called(self._asking, partial(method, *args, **kwargs))

    async def take_in(self, submit: Callable[[], Result]) -> Result:
        """As `ask`, for a submission whose payload may be large."""
        return await _called(self._taking_in, submit)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, in whatever thread, after a job came in or was called off here."""
        with self._changing:
            self._listeners = (*self._listeners, listener)

    def require_room(self) -> None:
        """Raise ApiError 429 `too_many_jobs` where `submit` would: before a body is read."""
        with self.database.read() as connection:
            self._room.check(connection)

    def submit(
        self,
        kind: str,
        corpus: str,
        request: Mapping[str, Any],
        principal: str,
        *,
        items: Iterable[Item] = (),
        idempotency_key: str | None = None,
    ) -> tuple[Job, bool]:
        """Write down a job: durable with all of its payload once this returns, and queued.

        request: what JSON can tell. items: read one at a time, never all in memory. Gives the job
        and True; or, where the same principal sent the same with the same key before, that job as
        it is now and False.
        Raises ApiError: 409 `idempotency_key_reused` where what was sent with the key was not the
        same, 422 `bad_idempotency_key`, 429 `too_many_jobs` with Retry-After, 413 `job_too_large`;
        and whatever `items` raises. Nothing of the job is left then.
        """
        found = receive(
            self.database, self._room, kind, corpus, request, principal, items, idempotency_key
        )
        self._tell()
        return found

    def get(self, job_id: str) -> Job:
        """A job as it is now. Raises ApiError 404 `job_not_found`."""
        with self.database.read() as connection:
            return job_of(_row(connection, job_id))

    def list(
        self,
        corpus: str | None = None,
        state: JobState | None = None,
        limit: int = 100,
        after: str | None = None,
        *,
        corpora: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Job]:
        """At most `limit` jobs, the newest first, those older than job `after`.

        corpora, kinds: only of these, None for all. Raises ApiError 404 where `after` is no job.
        """
        chosen = sa.select(JOBS).where(JOBS.c.state != "receiving")
        if corpus is not None:
            chosen = chosen.where(JOBS.c.corpus == storable(corpus))
        if corpora is not None:
            chosen = chosen.where(JOBS.c.corpus.in_(corpora))
        if kinds is not None:
            chosen = chosen.where(JOBS.c.kind.in_(kinds))
        if state is not None:
            chosen = chosen.where(JOBS.c.state == state)
        with self.database.read() as connection:
            if after is not None:
                chosen = chosen.where(JOBS.c.number < _row(connection, after)["number"])
            rows = connection.execute(chosen.order_by(JOBS.c.number.desc()).limit(limit))
            return [job_of(row) for row in rows.mappings()]

    def verdicts(
        self, job_id: str, status: VerdictStatus | None = None, limit: int = 100, after: int = 0
    ) -> tuple[Sequence[Verdict], int | None]:
        """At most `limit` verdicts in the order in which they fell, and the `after` of the next
        page, None at the end. Raises ApiError 404 `job_not_found`."""
        with self.database.read() as connection:
            number = _row(connection, job_id)["number"]
            chosen = sa.select(VERDICTS).where(VERDICTS.c.job == number, VERDICTS.c.seq > after)
            if status is not None:
                chosen = chosen.where(VERDICTS.c.status == status)
            found = connection.execute(chosen.order_by(VERDICTS.c.seq).limit(limit + 1))
            rows = found.mappings().all()
        more = rows[limit - 1]["seq"] if len(rows) > limit else None
        return [verdict_of(row) for row in rows[:limit]], more

    def events(self, job_id: str, after_seq: int = 0) -> Sequence[Event]:
        """What is new about a job since its revision `after_seq`: nothing, or how it is now, which
        holds all that was told before. Raises ApiError 404 `job_not_found`."""
        job = self.get(job_id)
        return [Event(job.revision, job)] if job.revision > after_seq else []

    def revisions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The revisions of those of the jobs that there are."""
        chosen = sa.select(JOBS.c.id, JOBS.c.revision).where(JOBS.c.id.in_(job_ids))
        with self.database.read() as connection:
            return {row.id: row.revision for row in connection.execute(chosen)}

    def cancel(self, job_id: str) -> Job:
        """Call a job off: at once where it is queued, else its worker ends it within 2 seconds
        (`Job.cancelling` until then). Twice is harmless.

        Raises ApiError 404 `job_not_found`, 409 `job_finished` where it succeeded or failed.
        """
        with self.database.begin() as connection:
            # One statement, so that it can't miss a job that changes its state just now.
            queued = JOBS.c.state == "queued"
            row = (
                connection.execute(
                    changed(
                        cancelling=True,
                        state=sa.case((queued, "cancelled"), else_=JOBS.c.state),
                        stage=sa.case((queued, "cancelled"), else_=JOBS.c.stage),
                        finished_at=sa.case((queued, datetime.now(UTC)), else_=JOBS.c.finished_at),
                        error=sa.case((queued, sa.null()), else_=JOBS.c.error),
                    )
                    .where(JOBS.c.id == storable(job_id), JOBS.c.state.in_(("queued", "running")))
                    .where(~JOBS.c.cancelling)
                    .returning(*JOBS.c)
                )
                .mappings()
                .one_or_none()
            )
            job = job_of(row if row is not None else _row(connection, job_id))
        if row is not None:
            count_end(job.kind, job.state)
        elif job.state in ("succeeded", "failed"):
            raise job_finished(job)
        self._tell()
        return job

    def prune(self, days: int) -> int:
        """Forget jobs that have been over for so many days; how many there were."""
        before, pruned = datetime.now(UTC) - timedelta(days=days), 0
        while True:
            old = (
                sa.select(JOBS.c.number)
                .where(JOBS.c.state.in_(FINAL), JOBS.c.finished_at < before, JOBS.c.payload == 0)
                .limit(_PRUNED_AT_ONCE)
            )
            with self.database.begin() as connection:
                gone = connection.execute(sa.delete(JOBS).where(JOBS.c.number.in_(old))).rowcount
            pruned += gone
            if gone < _PRUNED_AT_ONCE:
                return pruned

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


async def _called(threads: Executor, call: Callable[[], Result]) -> Result:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, copy_context().run, call)


def job_not_found(job_id: str) -> ApiError:
    """The error for a job that is not there, or not for the caller."""
    return ApiError(
        404,
        "job_not_found",
        f"there is no job '{job_id[:64]}': `refdesk jobs list` shows which there are",
    )


def job_finished(job: Job) -> ApiError:
    """The error for calling off a job that ended by itself."""
    why = f": {job.error.message}" if job.error else ""
    return ApiError(409, "job_finished", f"job {job.id} is over already, it {job.state}{why}")


def _row(connection: sa.Connection, job_id: str) -> sa.RowMapping:
    chosen = sa.select(JOBS).where(JOBS.c.id == storable(job_id), JOBS.c.state != "receiving")
    row = connection.execute(chosen).mappings().one_or_none()
    if row is None:
        raise job_not_found(job_id)
    return row
