"""Jobs for tests: their work is done on real files, so that one can see what was done."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.attend import Patience
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Item, Job, Run, Verdict, Work
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.jobs.watch import JobWatch
from services.retrieve.routes.jobs import add_routes
from shared.service import create_service
from shared.settings import Settings
from tests.suite import serving


def items(count: int, size: int = 10) -> Iterator[Item]:
    """A payload: `count` files of `size` bytes."""
    for number in range(count):
        yield Item(number, f"{number}.txt", {"title": f"№ {number}"}, bytes([number % 256]) * size)


def copying(folder: Path, pause_s: float = 0.0) -> Work:
    """Writes each item to a file of its name, and a line of its name to `log`."""

    folder.mkdir(exist_ok=True)

    async def work(run: Run) -> Mapping[str, Any]:
        seq = -1 if run.cursor is None else int(run.cursor["seq"])
        while found := await run.items(seq, 3):
            for item in found:
                await asyncio.sleep(pause_s)
                await run.assure()
                (folder / item.name).write_bytes(item.data)
                with (folder / "log").open("a") as log:
                    log.write(f"{run.job.attempt} {item.name}\n")
                seq = item.seq
                await run.checkpoint(
                    {"seq": seq},
                    documents=1,
                    bytes=len(item.data),
                    verdicts=[Verdict(item.name, "created")],
                )
        return {"last": seq}

    return work


@asynccontextmanager
async def running(
    database: CatalogueDatabase, works: Mapping[str, Work], **more: Any
) -> AsyncIterator[Jobs]:
    """Jobs that are done in this process, with no time lost between tries and looks."""
    jobs = Jobs(database)
    more.setdefault("turn_s", 0.1)
    more.setdefault("patience", Patience(tries=4, pause_s=0.01))
    runner = JobRunner(jobs, works, **more)
    await runner.start()
    try:
        yield jobs
    finally:
        await runner.close()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once it holds; fail when it has not come to hold after a generous time."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - a database has no event
            await asyncio.sleep(0.02)


async def ended(jobs: Jobs, job_id: str, seconds: float = 30) -> Job:
    """The job, once it is over."""
    await until(lambda: jobs.get(job_id).over, seconds)
    return jobs.get(job_id)


@asynccontextmanager
async def serving_jobs(
    database: CatalogueDatabase, works: Mapping[str, Work], **settings: Any
) -> AsyncIterator[tuple[Jobs, str]]:
    """A service with the routes under /jobs and nothing else, and its URL."""
    jobs = Jobs(database)
    runner, watch = JobRunner(jobs, works), JobWatch(jobs)

    async def probe() -> dict[str, Any]:
        return {}

    async def close() -> None:
        await watch.close()
        await runner.close()

    app = create_service(
        "retrieve", Settings(**settings), probe=probe, start=runner.start, close=close
    )
    add_routes(app, jobs, watch)
    async with serving(app) as url:
        yield jobs, url
