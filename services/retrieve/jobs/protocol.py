"""What goes over the wire about jobs: every body, with its limits."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict

from services.retrieve.jobs.model import Job, JobState, Verdict, VerdictStatus
from shared.errors import ErrorFields
from shared.moment import Moment

JobId = Annotated[str, Path(max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class JobProgress(_Body):
    """What a job has done so far. The totals are null where they are not known, and so are the
    rates, over the last half minute, and the time left, in seconds."""

    documents: int
    chunks: int
    bytes: int
    total_documents: int | None
    total_bytes: int | None
    documents_per_s: float | None
    bytes_per_s: float | None
    seconds_left: float | None


class JobVerdicts(_Body):
    """How many documents came out how; GET /jobs/ID/verdicts lists them."""

    created: int
    replaced: int
    unchanged: int
    deleted: int
    failed: int


class JobBody(_Body):
    """A job. state: queued, running, succeeded, failed or cancelled. stage: what it is at, for
    people. attempt: how often it was begun.

    result: of a job that succeeded, in the terms of its kind. error: why it failed; of one that
    waits to be tried again, what went wrong the last time.
    """

    id: str
    kind: str
    corpus: str
    state: JobState
    stage: str
    attempt: int
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    progress: JobProgress
    verdicts: JobVerdicts
    result: dict[str, Any] | None
    error: ErrorFields | None


class JobPage(_Body):
    """Jobs, the newest first. next: what to send as `after` for the next page, or null."""

    jobs: list[JobBody]
    next: str | None


class VerdictBody(_Body):
    """What became of one document. chunks: how many it has now. code and reason: of one that
    failed, else null."""

    id: str
    status: VerdictStatus
    chunks: int
    code: str | None
    reason: str | None


class VerdictPage(_Body):
    """Verdicts in the order in which they fell. next: as of a page of jobs."""

    verdicts: list[VerdictBody]
    next: int | None


def job_body(job: Job) -> JobBody:
    """A job as it goes over the wire."""
    progress = job.progress
    return JobBody(
        id=job.id,
        kind=job.kind,
        corpus=job.corpus,
        state=job.state,
        stage=job.stage,
        attempt=job.attempt,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        progress=JobProgress(
            documents=progress.documents,
            chunks=progress.chunks,
            bytes=progress.bytes,
            total_documents=progress.total_documents,
            total_bytes=progress.total_bytes,
            **asdict(progress.rates),
        ),
        verdicts=JobVerdicts.model_validate(job.verdicts),
        result=dict(job.result) if job.result is not None else None,
        error=ErrorFields(**asdict(job.error)) if job.error else None,
    )


def verdict_body(verdict: Verdict) -> VerdictBody:
    """A verdict as it goes over the wire."""
    return VerdictBody(**asdict(verdict))
