"""The way of a job into the catalogue: its payload, a part at a time, then the job itself.

The payload comes from a caller who may be slow, so it is written in short transactions, beside a
row that is nobody's job yet (`receiving`). The last transaction makes it one, in a single step.
Whatever was left by a process that died in between goes when the leases are looked after.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.model import Item, Job, lane_of
from services.retrieve.jobs.rows import changed, job_of, new_row, storable
from services.retrieve.jobs.tables import ITEMS, JOBS
from shared.errors import ApiError

_PART_BYTES = 4 * 1024 * 1024  # that are written in one transaction, but at least one item
_PART_ITEMS = 256
_KEY_CHARACTERS = 255
_RETRY_AFTER_S = "10"
ACTIVE = ("receiving", "queued", "running")


@dataclass(frozen=True)
class Room:
    """How much may wait. payload: bytes of all jobs that are not over. jobs: that are not over."""

    payload: int
    jobs: int = 10_000

    def check(self, connection: sa.Connection, own: int = 0) -> None:
        """Raise ApiError 429 `too_many_jobs` where there is none, or 413 `job_too_large` where a
        payload of `own` bytes would never fit."""
        if own > self.payload:
            raise ApiError(
                413,
                "job_too_large",
                f"the request is over {self.payload >> 20} MiB, more than may wait at all: send "
                "it in parts, or raise REFDESK_JOBS_WAITING_MB",
            )
        waiting = connection.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(JOBS.c.payload), 0)).where(
                JOBS.c.state.in_(ACTIVE)
            )
        ).one()
        if waiting[0] > self.jobs or waiting[1] > self.payload:
            raise ApiError(
                429,
                "too_many_jobs",
                f"{waiting[0]} jobs with {int(waiting[1]) >> 20} MiB wait already: try again when "
                "some are done",
                headers={"Retry-After": _RETRY_AFTER_S},
            )


def receive(
    database: CatalogueDatabase,
    room: Room,
    kind: str,
    corpus: str,
    request: Mapping[str, Any],
    principal: str,
    items: Iterable[Item],
    key: str | None,
) -> tuple[Job, bool]:
    """Write down a job; (the job, True), or the one that the same key made before and False.

    What is there to do, in documents and bytes, is what `items` come to, until the work tells
    otherwise. Raises ApiError 409 `idempotency_key_reused`, 422 `bad_idempotency_key`, what
    `Room.check` does, and whatever `items` raises; nothing of the job is left then.
    """
    _check_key(key)
    principal = storable(principal)
    asked = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    print_of = hashlib.sha256(orjson.dumps([kind, corpus, hashlib.sha256(asked).hexdigest()]))
    number = _begin(database, room, new_row(uuid4().hex, kind, corpus, principal, lane_of(kind)))
    totals = Counter[str]()
    try:
        for part in _parts(items):
            _write(database, room, number, part, print_of)
            size = sum(len(item.data) for item in part)
            totals.update(total_documents=len(part), total_bytes=size)
        asked_columns = {"request": asked.decode(), "fingerprint": print_of.hexdigest(), **totals}
        return _submit(database, number, principal, key, asked_columns)
    except BaseException:
        # Where even that fails, a look after the leases will do it.
        _forget(database, number)
        raise


def _check_key(key: str | None) -> None:
    if key is not None and not (0 < len(key) <= _KEY_CHARACTERS and key.isprintable()):
        raise ApiError(
            422,
            "bad_idempotency_key",
            f"Idempotency-Key must be 1 to {_KEY_CHARACTERS} visible characters",
            param="Idempotency-Key",
        )


def _begin(database: CatalogueDatabase, room: Room, row: Mapping[str, Any]) -> int:
    with database.begin() as connection:
        room.check(connection)
        return int(
            connection.execute(sa.insert(JOBS).values(**row).returning(JOBS.c.number)).scalar_one()
        )


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    part: list[Item] = []
    size = 0
    for item in items:
        part.append(item)
        size += len(item.data)
        if size >= _PART_BYTES or len(part) >= _PART_ITEMS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write(
    database: CatalogueDatabase,
    room: Room,
    number: int,
    part: list[Item],
    print_of: "hashlib._Hash",
) -> None:
    rows = []
    for item in part:
        options = orjson.dumps(item.options, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(item.data).hexdigest()
        print_of.update(orjson.dumps([item.seq, storable(item.name), options.decode(), digest]))
        rows.append(
            {
                "job": number,
                "seq": item.seq,
                "name": storable(item.name),
                "options": options.decode(),
                "size": len(item.data),
                "data": item.data,
            }
        )
    size = sum(len(item.data) for item in part)
    with database.begin() as connection:
        alive = connection.execute(
            sa.update(JOBS)
            .where(JOBS.c.number == number)
            .values(payload=JOBS.c.payload + size, beat=JOBS.c.beat + 1)
            .returning(JOBS.c.payload)
        ).scalar_one_or_none()
        if alive is None:
            raise ApiError(
                503,
                "upload_too_slow",
                "the upload stood still for too long; send it again",
                headers={"Retry-After": "1"},
            )
        room.check(connection, own=alive)
        connection.execute(sa.insert(ITEMS), rows)


def _submit(
    database: CatalogueDatabase,
    number: int,
    principal: str,
    key: str | None,
    columns: Mapping[str, Any],
) -> tuple[Job, bool]:
    try:
        with database.begin() as connection:
            row = connection.execute(
                changed(state="queued", stage="queued", beat=0, idempotency_key=key, **columns)
                .where(JOBS.c.number == number)
                .returning(*JOBS.c)
            ).mappings()
            return job_of(row.one()), True
    except IntegrityError:  # the key made one before, perhaps a moment ago
        with database.read() as connection:
            found = (
                connection.execute(
                    sa.select(JOBS).where(
                        JOBS.c.principal == principal, JOBS.c.idempotency_key == key
                    )
                )
                .mappings()
                .one()
            )
        if found["fingerprint"] != columns["fingerprint"]:
            raise ApiError(
                409,
                "idempotency_key_reused",
                f"this Idempotency-Key was sent with another request, which made job "
                f"{found['id']}: use a new key for a new request",
                param="Idempotency-Key",
            ) from None
        _forget(database, number)
        return job_of(found), False


def _forget(database: CatalogueDatabase, number: int) -> None:
    try:
        with database.begin() as connection:
            connection.execute(
                sa.delete(JOBS).where(JOBS.c.number == number, JOBS.c.state == "receiving")
            )
    except ApiError:
        pass
