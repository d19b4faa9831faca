"""Follows jobs for those who watch them: one look at the catalogue for all of them together."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Event
from shared.context import Deadline
from shared.errors import ApiError
from shared.telemetry import get_logger

_LOOK_S = 0.5
_SILENCE_S = 10.0  # after which a watcher is told that there is nothing new
_SPARE_S = 0.5  # of a watcher's deadline, to end in time

log = get_logger(__name__)


@dataclass
class _Watched:
    """A job with those who watch it. news: set when `event` is replaced."""

    watchers: int = 0
    event: Event | None = None
    gone: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class JobWatch:
    """Tells what happens to jobs, in whatever process it happens. Used in one event loop."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._watched: dict[str, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    async def follow(
        self, job_id: str, after: int, deadline: Deadline
    ) -> AsyncIterator[Event | None]:
        """The job as it is now, unless that was told as event `after`, and then after each change,
        until it is over, forgotten, or the deadline is near. None: nothing new for a while.

        What changes faster than twice a second is told together.
        """
        watched = self._watched.setdefault(job_id, _Watched())
        watched.watchers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        told: int | None = None
        try:
            while not watched.gone:
                news, event = watched.news, watched.event
                if event is not None and event.seq != told and event.seq != after:
                    told = event.seq
                    yield event
                if event is not None and event.job.over:
                    return
                wait_s = min(_SILENCE_S, deadline.remaining_ms() / 1000 - _SPARE_S)
                if wait_s <= 0:
                    return
                try:
                    async with asyncio.timeout(wait_s):
                        await news.wait()
                except TimeoutError:
                    yield None
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(job_id, None)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look(self) -> None:
        while self._watched:
            try:
                await self._look_once()
            except ApiError as error:  # the catalogue does not answer; it will again
                log.warning("job_watch_waits", reason=error.message)
            except Exception:  # those who watch would wait in silence
                log.exception("job_watch_failed")
            await asyncio.sleep(_LOOK_S)

    async def _look_once(self) -> None:
        watched = dict(self._watched)
        found = await self._jobs.ask(self._jobs.revisions, list(watched))
        for job_id, one in watched.items():
            if job_id not in found:
                one.gone = True
            elif one.event is None or one.event.seq != found[job_id]:
                events = await self._jobs.ask(self._jobs.events, job_id)
                one.event = events[-1]
            else:
                continue
            one.news.set()
            one.news = asyncio.Event()
