"""What becomes of generations that nobody works on: those whose time is over go, and those that a
job left behind which is over."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.reindex.protocol import Rollback
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Job
from services.retrieve.stores.engine import Engine
from shared.errors import ApiError
from shared.telemetry import get_logger

KINDS = ("reindex", "rollback", "migrate")
_SWEEP_S = 60.0

log = get_logger(__name__)


class Keeping:
    """Looks after the generations of all corpora, when it is started and once a minute."""

    def __init__(self, catalog: Catalog, jobs: Jobs) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Stop; a sweep that is under way ends first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def sweep(self, now: datetime) -> None:
        """Once through all corpora. A corpus whose generations are being worked on is left alone,
        and so is one whose engine does not answer."""
        for info in self._catalog.list():
            busy = self._catalog.generations(info.name)
            if not busy.acquire(blocking=False):
                continue
            try:
                last = next(iter(self._jobs.list(info.name, limit=1, kinds=KINDS)), None)
                if last is None or last.over:  # else it counts on what there is, queued or not
                    for engine in self._catalog.engines.values():
                        self._sweep_one(engine, info.name, last, now)
            except ApiError as error:
                log.warning("generations_not_swept", corpus=info.name, reason=error.message)
            finally:
                busy.release()

    async def _go_on(self) -> None:
        while True:
            sweep = asyncio.create_task(asyncio.to_thread(self.sweep, datetime.now(UTC)))
            try:
                await asyncio.shield(sweep)
            except asyncio.CancelledError:
                with suppress(Exception):
                    await sweep
                raise
            except Exception:
                log.exception("generations_not_swept")
            await asyncio.sleep(_SWEEP_S)

    def _sweep_one(self, engine: Engine, name: str, last: Job | None, now: datetime) -> None:
        if engine.forget(name, now):
            log.info("generation_forgotten", corpus=name)
        darks = [one for one in engine.generations(name) if one.state == "dark"]
        if not darks or last is None or last.finished_at is None:
            return
        if _revived(last, darks[0].made_at):
            keep_days = Rollback.model_validate(last.request).keep_days
            engine.shelve(name, now + timedelta(days=keep_days))
        elif darks[0].made_at < last.finished_at:  # else it is of a restore in another process
            engine.discard(name)
        else:
            return
        log.info("generation_left_behind", corpus=name, job=last.id)


def _revived(job: Job, made_at: datetime) -> bool:
    """Whether it was a rollback, to a generation that was begun then."""
    return job.kind == "rollback" and Rollback.model_validate(job.request).made_at == made_at
