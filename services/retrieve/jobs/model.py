"""What a job is: its values, the verdicts on its documents, and what its work is given."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})
VerdictStatus = Literal["created", "replaced", "unchanged", "deleted", "failed"]
VERDICTS: tuple[VerdictStatus, ...] = ("created", "replaced", "unchanged", "deleted", "failed")

# Jobs of one corpus in the same lane are done one after the other, in the order in which they were
# sent: of two versions of a document the later one wins. A kind that is not here has its own lane.
_LANES = {"reindex": "generations", "rollback": "generations", "migrate": "generations"}


def lane_of(kind: str) -> str:
    """The lane of a kind of job."""
    return _LANES.get(kind, kind)


@dataclass(frozen=True)
class Item:
    """A part of a job's payload. seq: from 0, rising; data: as it was sent."""

    seq: int
    name: str
    options: Mapping[str, Any]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Verdict:
    """What became of one document. chunks: how many it has now; code and reason: of a failure."""

    id: str
    status: VerdictStatus
    chunks: int = 0
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Rates:
    """How fast a job goes, by what it did lately; None where that is not known.

    seconds_left: until its totals are reached, where it has told them.
    """

    documents_per_s: float | None = None
    bytes_per_s: float | None = None
    seconds_left: float | None = None


UNKNOWN = Rates()


@dataclass(frozen=True)
class Progress:
    """What a job has done so far, of what there is to do where that is known."""

    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    total_documents: int | None = None
    total_bytes: int | None = None
    rates: Rates = UNKNOWN


@dataclass(frozen=True)
class Failure:
    """Why a job failed, or why it waits to be tried again: the fields of the one error shape."""

    message: str
    type: str
    code: str
    param: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as it was at one moment.

    revision: counts its changes from 1. attempt: how often it was begun; whoever works on it
    proves with this number that it is still theirs. stage: what it is at, for people. request: what
    was asked. cursor: how far it came, in its work's own terms. error: of a failed job why, of one
    that waits to be tried again what went wrong last. cancelling: its end was asked for.
    """

    id: str
    kind: str
    corpus: str
    state: JobState
    stage: str
    attempt: int
    revision: int
    principal: str
    request: Mapping[str, Any]
    cursor: Mapping[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    verdicts: Mapping[VerdictStatus, int]
    result: Mapping[str, Any] | None
    error: Failure | None
    cancelling: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.state in FINAL


@dataclass(frozen=True)
class Event:
    """A change of a job, as server-sent events tell it: seq is the job's revision."""

    seq: int
    job: Job


class LeaseLostError(Exception):
    """Another worker has this job now, or it is over: what this one does no longer counts."""


class Run(Protocol):
    """One attempt at a job, as its work sees it (jobs/run.py)."""

    @property
    def job(self) -> Job:
        """The job as it was when this attempt began."""
        ...

    @property
    def cursor(self) -> Mapping[str, Any] | None:
        """What the last checkpoint left, of this attempt or of an earlier one."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the job's end was asked for: what it leaves behind is of no more use. A task that
        is cancelled without is to be gone on with later."""
        ...

    async def assure(self) -> None:
        """Raise `LeaseLostError` where this attempt no longer counts; to be asked before each
        write. A process that stood still for longer than its lease goes on in the middle of its
        work, and what it was about to write may be older than what is there by now."""
        ...

    async def items(self, after: int, most: int) -> list[Item]:
        """The next parts of the payload with a `seq` above `after`: at most `most`, fewer where
        they are large (about 32 MiB, but at least one), none at the end."""
        ...

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
        """Tell what was done since the last one. What is told becomes durable within a second or
        so, together: after a crash the work goes on from a cursor that fits what was counted, and
        does again what came after it.

        documents, chunks, bytes: added to the progress. The totals and the stage replace those of
        before. Waits while the catalogue can't be reached. Raises `LeaseLostError` where this
        attempt no longer counts; after a cancel the task is cancelled.
        """
        ...


# What does the work of one kind of job; gives the job's result, an object that JSON can tell.
#
# What a work must keep to:
# - It can be cancelled at any `await`, and be begun again from the last checkpoint's cursor: what
#   it does twice must be harmless. It catches `CancelledError` only to clean up, in half a second.
# - What it has done in threads is bounded to a second or two: a thread can't be cancelled. What may
#   take longer belongs in a process that is killed when the task is cancelled.
# - It calls `checkpoint` after each batch, and after what it counts is durable, never before.
# - It calls `assure` before each write.
# - It raises ApiError for what went wrong. 429, 502, 503 and 504, and errors of connections, may
#   pass: the job is tried again from its cursor. All else ends it.
# - The request and the verdicts are told to whoever may write the corpus: no secrets in them.
Work = Callable[[Run], Awaitable[Mapping[str, Any]]]
