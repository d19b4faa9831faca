"""Routes under /jobs: what is being done, what came of it, and its end."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Response
from fastapi.responses import StreamingResponse

from services.retrieve.jobs.jobs import Jobs, job_not_found
from services.retrieve.jobs.model import Job, JobState, VerdictStatus
from services.retrieve.jobs.protocol import (
    JobBody,
    JobId,
    JobPage,
    VerdictPage,
    job_body,
    verdict_body,
)
from services.retrieve.jobs.watch import JobWatch
from shared.context import Deadline, current

_CANCEL_S = 2.5  # that an answer waits for a cancelled job to be over
_LOOK_S = 0.05
_MOST_DIGITS = 18  # of an event's number
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events `job`, each with the job in its data",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job is over, and its last event is the one in Last-Event-ID"},
}


def add_routes(app: FastAPI, jobs: Jobs, watch: JobWatch) -> None:
    """Add the routes to the app."""

    @app.get("/jobs")
    async def list_jobs(
        corpus: Annotated[str | None, Query(max_length=256)] = None,
        state: JobState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> JobPage:
        """Jobs of the corpora that the caller may write, the newest first."""
        principal = current().principal
        if principal.role != "admin":
            return JobPage(jobs=[], next=None)
        corpora = None if "*" in principal.corpora else sorted(principal.corpora)
        found = await jobs.ask(jobs.list, corpus, state, limit + 1, after, corpora=corpora)
        page = [job_body(job) for job in found[:limit]]
        return JobPage(jobs=page, next=page[-1].id if len(found) > limit else None)

    @app.get("/jobs/{job_id}")
    async def get_job(job_id: JobId) -> JobBody:
        """A job as it is now."""
        return job_body(await _visible(jobs, job_id))

    @app.get("/jobs/{job_id}/verdicts")
    async def list_verdicts(
        job_id: JobId,
        status: VerdictStatus | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    ) -> VerdictPage:
        """What became of each document, in the order in which it was decided."""
        await _visible(jobs, job_id)
        found, more = await jobs.ask(jobs.verdicts, job_id, status, limit, after)
        return VerdictPage(verdicts=[verdict_body(one) for one in found], next=more)

    @app.get("/jobs/{job_id}/events", responses=_EVENTS, response_class=StreamingResponse)
    async def watch_job(
        job_id: JobId, last_event_id: Annotated[str | None, Header(max_length=64)] = None
    ) -> Response:
        """A job as it is now and after each change, as server-sent events, until it is over."""
        job = await _visible(jobs, job_id)
        after = _event_number(last_event_id)
        if job.over and after == job.revision:
            return Response(status_code=204)  # which tells a browser not to ask again
        return StreamingResponse(
            _events(watch, job_id, after, current().deadline),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    @app.post("/jobs/{job_id}/cancel", responses={202: {"model": JobBody}})
    async def cancel_job(job_id: JobId, response: Response) -> JobBody:
        """Call a job off. 200 once it is over, 202 where its worker has not ended it yet, 409 where
        it succeeded or failed already."""
        await _visible(jobs, job_id)
        job = await jobs.ask(jobs.cancel, job_id)
        give_up = time.monotonic() + _CANCEL_S
        while not job.over and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK_S)
            job = await jobs.ask(jobs.get, job_id)
        response.status_code = 200 if job.over else 202
        return job_body(job)


async def _visible(jobs: Jobs, job_id: str) -> Job:
    """A job of a corpus that the caller may write. Raises ApiError 404 for any other."""
    job = await jobs.ask(jobs.get, job_id)
    if not current().principal.may_write(job.corpus):
        raise job_not_found(job_id)
    return job


def _event_number(text: str | None) -> int:
    """The number of the last event that a caller saw; 0 for none, and for what is no number."""
    known = text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text or 0) if known else 0


async def _events(
    watch: JobWatch, job_id: str, after: int, deadline: Deadline
) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    async for event in watch.follow(job_id, after, deadline):
        if event is None:
            yield ": nothing new\n\n"
        else:
            body = job_body(event.job).model_dump_json()
            yield f"id: {event.seq}\nevent: job\ndata: {body}\n\n"
