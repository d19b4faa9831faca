"""Who works on which job: taking one, telling how far it is, ending it, and missing a dead worker.

A worker has a job from `claim` until it ends it, and each claim raises the job's `attempt`.
Whatever a worker tells names its attempt; what an earlier one tells is refused (`LeaseLostError`),
in the same transaction. So a worker that was taken for dead, and was not, changes nothing any more.

No clock of a calendar decides anything here, since those go backwards: a live worker raises its
job's `beat`, and who sees a beat stand still for long enough, by a clock of its own that only goes
forward, takes the job from that very beat (`take`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.metrics import count_end, count_verdicts
from services.retrieve.jobs.model import (
    FINAL,
    UNKNOWN,
    VERDICTS,
    Failure,
    Item,
    Job,
    LeaseLostError,
    Rates,
    Verdict,
)
from services.retrieve.jobs.rows import changed, dumped, failure_row, item_of, job_of, verdict_row
from services.retrieve.jobs.tables import ITEMS, JOBS
from services.retrieve.jobs.tables import VERDICTS as VERDICT_ROWS
from shared import __version__

_PAGE_BYTES = 32 * 1024 * 1024
_NEWER = "waiting for a newer refdesk"
_SWEPT_ITEMS = 256  # of an ended job's payload that go in one transaction


@dataclass(frozen=True)
class Lease:
    """A job that a worker has. number: its row. tries: how often it failed in a way that may pass
    since its cursor last moved."""

    number: int
    job: Job
    tries: int = 0


@dataclass(frozen=True)
class Sign:
    """The last that was seen of a running job, or of a payload that comes in (attempt 0)."""

    number: int
    worker: str | None
    attempt: int
    beat: int
    receiving: bool


@dataclass(frozen=True)
class Waiting:
    """A queued job whose turn it is in its lane; wait_s: to be waited from when it is first seen,
    as this try of this attempt, until it is taken."""

    number: int
    attempt: int
    tries: int
    wait_s: float


@dataclass
class News:
    """What a worker did since it told last; see `Run.checkpoint`."""

    cursor: Mapping[str, Any] | None = None
    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    verdicts: Sequence[Verdict] = ()
    total_documents: int | None = None
    total_bytes: int | None = None
    stage: str | None = None
    rates: Rates = UNKNOWN

    @property
    def any(self) -> bool:
        """Whether there is something to tell."""
        return self.cursor is not None


class Leases:
    """What workers do with jobs. Synchronous, for any thread; raises what the database does."""

    def __init__(self, database: CatalogueDatabase) -> None:
        self._database = database

    def waiting(self, kinds: Sequence[str]) -> list[Waiting]:
        """The queued jobs of these kinds whose turn it is, the oldest first: in a lane of a corpus
        nothing runs, and they are the first there."""
        first = (
            sa.select(sa.func.min(JOBS.c.number))
            .where(JOBS.c.state == "queued")
            .group_by(JOBS.c.corpus, JOBS.c.lane)
        )
        at_work = JOBS.alias("at_work")
        same_lane = sa.and_(at_work.c.corpus == JOBS.c.corpus, at_work.c.lane == JOBS.c.lane)
        chosen = (
            sa.select(JOBS.c.number, JOBS.c.attempt, JOBS.c.tries, JOBS.c.wait_s)
            .where(JOBS.c.number.in_(first), JOBS.c.kind.in_(kinds))
            .where(~sa.exists().where(same_lane, at_work.c.state == sa.literal_column("'running'")))
            .order_by(JOBS.c.number)
        )
        with self._database.read() as connection:
            return [Waiting(*row) for row in connection.execute(chosen)]

    def queued(self) -> dict[str, int]:
        """How many jobs are queued, by kind."""
        counted = sa.select(JOBS.c.kind, sa.func.count()).where(JOBS.c.state == "queued")
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(counted.group_by(JOBS.c.kind))}

    def leave_to_newer(self, kinds: Sequence[str]) -> int:
        """Say of the queued jobs of these kinds, which this version does not know, what they wait
        for; of how many it was not said before. They stay queued: another replica, or this one
        after an upgrade, may know them."""
        stage = f"{_NEWER}: version {__version__} does not know jobs of this kind"
        with self._database.begin() as connection:
            return connection.execute(
                changed(stage=stage)
                .where(JOBS.c.state == "queued", JOBS.c.kind.in_(kinds))
                .where(~JOBS.c.stage.startswith(_NEWER))
            ).rowcount

    def claim(self, wanted: Waiting, worker: str) -> Lease | None:
        """Take a queued job; None where another was faster or its lane is no longer free."""
        try:
            with self._database.begin() as connection:
                row = (
                    connection.execute(
                        changed(
                            state="running",
                            stage="running",
                            attempt=JOBS.c.attempt + 1,
                            worker=worker,
                            wait_s=0,
                            beat=JOBS.c.beat + 1,
                            started_at=sa.func.coalesce(JOBS.c.started_at, datetime.now(UTC)),
                        )
                        .where(JOBS.c.number == wanted.number, JOBS.c.state == "queued")
                        .where(JOBS.c.attempt == wanted.attempt)
                        .returning(*JOBS.c)
                    )
                    .mappings()
                    .one_or_none()
                )
                return None if row is None else Lease(row["number"], job_of(row), row["tries"])
        except IntegrityError:  # by `jobs_one_of_a_lane`
            return None

    def items(self, lease: Lease, after: int, most: int) -> list[Item]:
        """The next items of a job's payload; see `Run.items`."""
        mine = sa.and_(ITEMS.c.job == lease.number, ITEMS.c.seq > after)
        with self._database.read() as connection:
            sizes = connection.execute(
                sa.select(ITEMS.c.seq, ITEMS.c.size).where(mine).order_by(ITEMS.c.seq).limit(most)
            ).all()
            last, size = after, 0
            for row in sizes:
                size += row.size
                if size > _PAGE_BYTES and last != after:
                    break
                last = row.seq
            rows = connection.execute(
                sa.select(ITEMS).where(mine, ITEMS.c.seq <= last).order_by(ITEMS.c.seq)
            )
            return [item_of(row) for row in rows.mappings()]

    def tell(self, lease: Lease, news: News) -> bool:
        """Show that the worker lives, with what it did since; whether the job's end was asked for.

        Raises `LeaseLostError` where the worker no longer has the job; then nothing is changed.
        """
        with self._database.begin() as connection:
            told = connection.execute(
                sa.update(JOBS)
                .values(beat=JOBS.c.beat + 1, **_columns(news))
                .where(*_mine(lease))
                .returning(JOBS.c.cancelling)
            ).one_or_none()
            if told is None:
                raise LeaseLostError
            _add_verdicts(connection, lease.number, news)
        count_verdicts(lease.job.kind, news.verdicts)
        return bool(told.cancelling)

    def finish(
        self,
        lease: Lease,
        news: News,
        state: Literal["succeeded", "failed", "cancelled"],
        result: str | None = None,
        error: Failure | None = None,
    ) -> None:
        """End a job. result: an object as JSON. Raises `LeaseLostError` as `tell`."""
        columns = {
            "state": state,
            "stage": state,
            "result": result,
            "error": failure_row(error),
            "finished_at": datetime.now(UTC),
            "worker": None,
            "seconds_left": None,
        }
        self._leave(lease, news, columns)

    def put_back(self, lease: Lease, news: News) -> None:
        """Let go of a job in the middle, for whoever takes it next. Raises as `tell`."""
        self._leave(lease, news, _queued_again("queued"))

    def try_again(
        self, lease: Lease, news: News, wait_s: float, error: Failure, tries: int
    ) -> None:
        """Let go of a job that failed in a way that may pass, to be taken again after `wait_s`
        seconds. tries: such failures since the cursor last moved. Raises as `tell`."""
        then = datetime.now(UTC) + timedelta(seconds=wait_s)
        columns = {
            **_queued_again(f"waiting to be tried again at {then:%Y-%m-%dT%H:%M:%SZ}"),
            "wait_s": wait_s,
            "tries": tries,
            "error": sa.case((JOBS.c.cancelling, sa.null()), else_=failure_row(error)),
        }
        self._leave(lease, news, columns)

    def signs(self) -> list[Sign]:
        """The last signs of life of all running jobs and of payloads that come in."""
        chosen = sa.select(
            JOBS.c.number, JOBS.c.worker, JOBS.c.attempt, JOBS.c.beat, JOBS.c.state
        ).where(JOBS.c.state.in_(("running", "receiving")))
        with self._database.read() as connection:
            return [
                Sign(row.number, row.worker, row.attempt, row.beat, row.state == "receiving")
                for row in connection.execute(chosen)
            ]

    def take(self, sign: Sign, most_deaths: int) -> bool:
        """Take a job from a worker that is dead, unless it gave another sign since: it is queued
        again, or over where its end was asked for or too many have died of it at the same place.
        A payload that was left in the middle is thrown away. Whether anything was done."""
        here = (
            JOBS.c.number == sign.number,
            JOBS.c.attempt == sign.attempt,
            JOBS.c.beat == sign.beat,
        )
        with self._database.begin() as connection:
            if sign.receiving:
                left = sa.delete(JOBS).where(*here, JOBS.c.state == "receiving")
                return connection.execute(left).rowcount > 0
            buried = connection.execute(
                _bury(most_deaths)
                .where(*here, JOBS.c.state == "running")
                .returning(JOBS.c.kind, JOBS.c.state)
            ).one_or_none()
        if buried is not None:
            count_end(buried.kind, buried.state)
        return buried is not None

    def sweep(self) -> bool:
        """Remove a piece of the payload of a job that is over; whether there was one."""
        with self._database.begin() as connection:
            number = connection.execute(
                sa.select(JOBS.c.number).where(JOBS.c.state.in_(FINAL), JOBS.c.payload > 0).limit(1)
            ).scalar_one_or_none()
            if number is None:
                return False
            first = (
                sa.select(ITEMS.c.seq)
                .where(ITEMS.c.job == number)
                .order_by(ITEMS.c.seq)
                .limit(_SWEPT_ITEMS)
            )
            piece = sa.delete(ITEMS).where(ITEMS.c.job == number, ITEMS.c.seq.in_(first))
            if connection.execute(piece).rowcount < _SWEPT_ITEMS:
                connection.execute(sa.update(JOBS).where(JOBS.c.number == number).values(payload=0))
            return True

    def _leave(self, lease: Lease, news: News, columns: dict[str, Any]) -> None:
        with self._database.begin() as connection:
            told = _columns(news) | {"revision": JOBS.c.revision + 1} | columns
            state = connection.execute(
                sa.update(JOBS)
                .values(beat=JOBS.c.beat + 1, **told)
                .where(*_mine(lease))
                .returning(JOBS.c.state)
            ).scalar_one_or_none()
            if state is None:
                raise LeaseLostError
            _add_verdicts(connection, lease.number, news)
        count_verdicts(lease.job.kind, news.verdicts)
        count_end(lease.job.kind, state)


def _mine(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        JOBS.c.number == lease.number,
        JOBS.c.attempt == lease.job.attempt,
        JOBS.c.state == "running",
    )


def _columns(news: News) -> dict[str, Any]:
    """What is told, as columns; nothing where there is no news, which nobody needs to see."""
    if not news.any:
        return {}
    cursor = dumped(news.cursor)
    moved = JOBS.c.cursor.is_distinct_from(cursor)
    columns: dict[str, Any] = {
        "cursor": cursor,
        "revision": JOBS.c.revision + 1,
        "documents": JOBS.c.documents + news.documents,
        "chunks": JOBS.c.chunks + news.chunks,
        "bytes": JOBS.c.bytes + news.bytes,
        "documents_per_s": news.rates.documents_per_s,
        "bytes_per_s": news.rates.bytes_per_s,
        "seconds_left": news.rates.seconds_left,
        # It may have come past the place where it failed or died before.
        "tries": sa.case((moved, 0), else_=JOBS.c.tries),
        "deaths": sa.case((moved, 0), else_=JOBS.c.deaths),
        "error": sa.case((moved, sa.null()), else_=JOBS.c.error),
    }
    for status in VERDICTS:
        fallen = sum(verdict.status == status for verdict in news.verdicts)
        if fallen:
            columns[status] = JOBS.c[status] + fallen
    optional = {
        "total_documents": news.total_documents,
        "total_bytes": news.total_bytes,
        "stage": news.stage,
    }
    return columns | {name: value for name, value in optional.items() if value is not None}


def _queued_again(stage: str) -> dict[str, Any]:
    """A job that its worker lets go of: queued, unless its end was asked for meanwhile."""
    ends = JOBS.c.cancelling
    return {
        "state": sa.case((ends, "cancelled"), else_="queued"),
        "stage": sa.case((ends, "cancelled"), else_=stage),
        "finished_at": sa.case((ends, datetime.now(UTC)), else_=None),
        "worker": None,
    }


def _add_verdicts(connection: sa.Connection, number: int, news: News) -> None:
    if not news.verdicts:
        return
    last = connection.execute(
        sa.select(sa.func.coalesce(sa.func.max(VERDICT_ROWS.c.seq), 0)).where(
            VERDICT_ROWS.c.job == number
        )
    ).scalar_one()
    rows = [
        verdict_row(number, seq, verdict) for seq, verdict in enumerate(news.verdicts, last + 1)
    ]
    connection.execute(sa.insert(VERDICT_ROWS), rows)


def _bury(most_deaths: int) -> sa.Update:
    """What becomes of a job whose worker died."""
    poison = JOBS.c.deaths + 1 >= most_deaths
    over = sa.or_(JOBS.c.cancelling, poison)
    state = sa.case((JOBS.c.cancelling, "cancelled"), (poison, "failed"), else_="queued")
    died = Failure(
        f"{most_deaths} processes in a row ended while they worked on this job, at the same "
        "place each time: see their logs, leave out what they were at, and send the rest again",
        "internal_error",
        "job_died",
    )
    return changed(
        state=state,
        stage=state,
        worker=None,
        wait_s=0,
        deaths=JOBS.c.deaths + 1,
        error=sa.case((sa.and_(poison, ~JOBS.c.cancelling), failure_row(died)), else_=JOBS.c.error),
        finished_at=sa.case((over, datetime.now(UTC)), else_=None),
    )
