"""Rows of the tables as values, and values as columns."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa

from services.retrieve.jobs.model import (
    VERDICTS,
    Failure,
    Item,
    Job,
    Progress,
    Rates,
    Verdict,
)
from services.retrieve.jobs.tables import JOBS
from shared.errors import ApiError

_FAULT_CHARACTERS = 4000


def job_of(row: sa.RowMapping) -> Job:
    """A row of JOBS."""
    error = _loaded(row["error"])
    stage = "cancelling" if row["cancelling"] and row["state"] == "running" else row["stage"]
    return Job(
        id=row["id"],
        kind=row["kind"],
        corpus=row["corpus"],
        state=row["state"],
        stage=stage,
        attempt=row["attempt"],
        revision=row["revision"],
        principal=row["principal"],
        request=orjson.loads(row["request"]),
        cursor=_loaded(row["cursor"]),
        created_at=_moment(row["created_at"]),
        started_at=_maybe(row["started_at"]),
        finished_at=_maybe(row["finished_at"]),
        progress=Progress(
            documents=row["documents"],
            chunks=row["chunks"],
            bytes=row["bytes"],
            total_documents=row["total_documents"],
            total_bytes=row["total_bytes"],
            rates=Rates(row["documents_per_s"], row["bytes_per_s"], row["seconds_left"]),
        ),
        verdicts={status: row[status] for status in VERDICTS},
        result=_loaded(row["result"]),
        error=Failure(**error) if error else None,
        cancelling=row["cancelling"],
    )


def item_of(row: sa.RowMapping) -> Item:
    """A row of ITEMS."""
    return Item(row["seq"], row["name"], orjson.loads(row["options"]), bytes(row["data"]))


def verdict_of(row: sa.RowMapping) -> Verdict:
    """A row of VERDICTS."""
    return Verdict(row["id"], row["status"], row["chunks"], row["code"], row["reason"])


def verdict_row(number: int, seq: int, verdict: Verdict) -> dict[str, Any]:
    """A verdict as a row of job `number`."""
    return {
        "job": number,
        "seq": seq,
        "id": storable(verdict.id),
        "status": verdict.status,
        "chunks": verdict.chunks,
        "code": verdict.code,
        "reason": storable(verdict.reason[:_FAULT_CHARACTERS]) if verdict.reason else None,
    }


def new_row(job_id: str, kind: str, corpus: str, principal: str, lane: str) -> dict[str, Any]:
    """The columns of a job of which nothing has come in yet."""
    nothing = dict.fromkeys(
        (
            *("revision", "attempt", "tries", "deaths", "wait_s", "beat", "payload"),
            *("documents", "chunks", "bytes", *VERDICTS),
        ),
        0,
    )
    return {
        **nothing,
        "id": job_id,
        "kind": kind,
        "corpus": corpus,
        "lane": lane,
        "principal": principal,
        "request": "{}",
        "fingerprint": "",
        "state": "receiving",
        "stage": "receiving",
        "cancelling": False,
        "created_at": datetime.now(UTC),
    }


def dumped(value: Mapping[str, Any] | None) -> str | None:
    """JSON as a text that both databases keep. Raises TypeError for what JSON can't tell."""
    return None if value is None else orjson.dumps(value).decode()


def failure_of(error: ApiError) -> Failure:
    """An error as a job keeps it."""
    return Failure(error.message[:_FAULT_CHARACTERS], error.type, error.code, error.param)


def failure_row(failure: Failure | None) -> str | None:
    """A failure as the column `error`."""
    if failure is None:
        return None
    fields = {
        "message": storable(failure.message),
        "type": failure.type,
        "code": failure.code,
        "param": storable(failure.param) if failure.param else None,
    }
    return orjson.dumps(fields).decode()


def storable(text: str) -> str:
    """A text that every database takes: without zero bytes and halves of characters."""
    return text.replace("\0", "�").encode(errors="replace").decode()


def changed(**columns: Any) -> sa.Update:
    """A change of a job that those who watch it shall see."""
    return sa.update(JOBS).values(revision=JOBS.c.revision + 1, **columns)


def _loaded(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _moment(value: datetime) -> datetime:
    # SQLite keeps no zone; what is written there is UTC.
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _maybe(value: datetime | None) -> datetime | None:
    return None if value is None else _moment(value)
