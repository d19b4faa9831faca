"""Keeping answers on record: a thread writes the records of all answers that wait in one go.

A record is on the disk before its answer is sent. One sync of the disk serves all that came while
the last one ran, so that a busy service waits no longer than an idle one.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any

import sqlalchemy as sa
from prometheus_client import Counter
from sqlalchemy.exc import IntegrityError

from services.generate.trust import escalations
from services.generate.trust.audit import START, Head, canonical, linked
from services.generate.trust.database import GenerateDatabase, hold_alone
from services.generate.trust.escalations import Escalation, Week
from services.generate.trust.tables import AUDIT, HEADS
from shared.database.faults import FULL_DISK, NOT_WRITABLE
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

CHAIN = "audit"  # of the table of heads
_MOST = 256  # records of a transaction
_CLOSING_S = 5.0  # that a ledger which closes waits for a database that does not answer
# Made once: making them anew costs more than running them.
_LAST = sa.select(HEADS.c.seq, HEADS.c.hash).where(HEADS.c.name == CHAIN)
# SQLite lets somebody else write anything there, also what is no number and no UTF-8.
_LAST_OF_SQLITE = sa.select(
    sa.cast(HEADS.c.seq, sa.Integer).label("seq"),
    sa.cast(HEADS.c.hash, sa.LargeBinary).label("hash"),
).where(HEADS.c.name == CHAIN)
_ADD = sa.insert(AUDIT)
_HERE: dict[str, sa.BindParameter[Any]] = {"seq": sa.bindparam("seq"), "hash": sa.bindparam("hash")}
_BEGIN = sa.insert(HEADS).values(name=sa.bindparam("chain"), **_HERE)
_MOVE = sa.update(HEADS).where(HEADS.c.name == sa.bindparam("chain")).values(**_HERE)
_FAULTS = {
    GenerateDatabase.purpose.unavailable: "its database does not answer",
    GenerateDatabase.purpose.damaged: "its database is damaged",
    FULL_DISK: "the disk of its database takes no more data",
    NOT_WRITABLE: "its database can't be written",
}
_RECORDS = Counter("refdesk_generate_audit_records_total", "Audit records written")
_FAILED = Counter(
    "refdesk_generate_audit_failed_total", "Answers whose records could not be written"
)


@dataclass(frozen=True)
class Entry:
    """What is kept of one answer. body: of the audit record; at: UTC; question: its SHA-256."""

    at: datetime
    request_id: str
    question: str
    body: Mapping[str, Any]
    escalations: Sequence[Escalation] = ()


@dataclass(frozen=True)
class _Waiting:
    entry: Entry
    body: str | None  # canonical; None where no trail is kept
    done: "Future[Head | None]"


class Ledger:
    """What a process writes about its answers. Safe to use from many tasks and threads.

    database: stays its opener's to close, after the ledger.
    audit: whether there is a trail, and no answer without a record in it; else only escalations
    are kept, and an answer does not wait for that.
    """

    def __init__(self, database: GenerateDatabase, *, audit: bool) -> None:
        self._database = database
        self._audit = audit
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()  # nothing is put into the queue behind its end
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, entry: Entry) -> "Future[Head | None]":
        """Have an entry written; the head of the chain with its record, None without a trail.

        The future raises ApiError 503 `audit_unavailable`.
        """
        body = canonical(entry.body) if self._audit else None
        done: Future[Head | None] = Future()
        if body is None and not entry.escalations:
            done.set_result(None)
            return done
        with self._lock:
            if self._closed:
                done.set_exception(_unavailable("the service is stopping"))
            else:
                self._queue.put(_Waiting(entry, body, done))
        return done

    async def keep(self, entry: Entry, patience: float | None = None) -> Head | None:
        """`submit`, and wait until the record is on the disk. Raises ApiError as it does.

        patience: seconds to wait, None for as long as it takes. Raises TimeoutError when they are
        over; the entry is written all the same, as soon as it can be.
        """
        done = self.submit(entry)
        if not self._audit:
            return None
        async with asyncio.timeout(patience):
            return await asyncio.wrap_future(done)

    def head(self) -> Head | None:
        """The chain's last record; None where there is none yet. Raises ApiError."""
        with self._database.read() as connection:
            return head_of(connection)

    def prove(self) -> None:
        """Raise ApiError where no answer could be put on record now."""
        if self._audit:
            self.head()

    def read(self) -> AbstractContextManager[sa.Connection]:
        """The database, to be read from. Raises ApiError."""
        return self._database.read()

    def weekly(self, first: str) -> list[Week]:
        """The escalations of each week from `first` (``2026-W01``) on. Raises ApiError."""
        with self._database.read() as connection:
            return escalations.weekly(connection, first)

    def close(self) -> None:
        """Write what waits, and end. Waits a few seconds for the database, at most."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            log.error("ledger_not_closed", waiting=self._queue.qsize())

    def _run(self) -> None:
        going_on = True
        while going_on:
            taken = [self._queue.get()]
            while len(taken) < _MOST:
                try:
                    taken.append(self._queue.get_nowait())
                except Empty:
                    break
            going_on = None not in taken
            batch = [one for one in taken if one is not None]
            if batch:
                self._write(batch)

    def _write(self, batch: Sequence[_Waiting]) -> None:
        # One that was cancelled is written all the same: nobody waits, but there was an answer.
        awaited = [one.done.set_running_or_notify_cancel() for one in batch]
        try:
            heads = self._append(batch)
        except Exception as error:
            _refuse(batch, awaited, _told(error, len(batch)))
            return
        _RECORDS.inc(sum(one.body is not None for one in batch))
        for one, waits, head in zip(batch, awaited, heads, strict=True):
            if waits:
                one.done.set_result(head)

    def _append(self, batch: Sequence[_Waiting]) -> list[Head | None]:
        with self._database.begin() as connection:
            heads = iter(append(connection, [one.body for one in batch if one.body is not None]))
            placed = [None if one.body is None else next(heads) for one in batch]
            for one, head in zip(batch, placed, strict=True):
                escalations.insert(
                    connection,
                    one.entry.escalations,
                    moment=one.entry.at,
                    request_id=one.entry.request_id,
                    question=one.entry.question,
                    audit=head.seq if head else None,
                )
        return placed


def append(connection: sa.Connection, bodies: Sequence[str]) -> list[Head]:
    """Add records to the chain, in a transaction that may write; the head after each of them.

    Raises IntegrityError where the chain goes on behind its head.
    """
    if not bodies:
        return []
    hold_alone(connection)
    head = head_of(connection)
    links = list(linked(head or START, bodies))
    connection.execute(_ADD, [vars(one) for one in links])
    connection.execute(_MOVE if head else _BEGIN, {"chain": CHAIN} | vars(links[-1].head))
    return [one.head for one in links]


def head_of(connection: sa.Connection) -> Head | None:
    """The head that is kept beside the chain; None where there is none."""
    own = connection.dialect.name == "sqlite"
    row = connection.execute(_LAST_OF_SQLITE if own else _LAST).first()
    return None if row is None else Head(row.seq, text(row.hash))


def text(value: str | bytes) -> str:
    """What a column holds, as text: a damaged byte of it shows as one that does not belong."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _refuse(batch: Sequence[_Waiting], awaited: Sequence[bool], told: ApiError) -> None:
    _FAILED.inc(len(batch))
    for one, waits in zip(batch, awaited, strict=True):
        if waits:
            one.done.set_exception(told)


def _told(error: Exception, records: int) -> ApiError:
    """What callers are told of a failure, which the log has whole: it names files and servers."""
    reason, told = str(error), "refdesk failed over it; its log has the cause"
    if isinstance(error, ApiError):
        reason, told = error.message, _FAULTS.get(error.code, "its database can't be used")
    elif isinstance(error, IntegrityError):
        reason = told = "the trail goes on behind its head: `refdesk audit verify` says where"
    else:
        log.exception("ledger_broke", error=type(error).__name__)
        reason = type(error).__name__
    log.error("ledger_not_written", records=records, reason=reason)
    return _unavailable(told)


def _unavailable(reason: str) -> ApiError:
    return ApiError(
        503,
        "audit_unavailable",
        f"no answer is given, as none can be put on record: {reason}",
        headers={"Retry-After": "2"},
    )
