"""The queue as a whole: what is counted of it, what waits for whom, and several who do its jobs."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.leases import Leases, News
from services.retrieve.jobs.model import Failure, Run, Verdict
from services.retrieve.jobs.tables import JOBS
from shared.errors import ApiError
from tests.works import ended, running, until

PASSING = Failure("embed does not answer", "service_unavailable_error", "unreachable")


@pytest.fixture
def database(catalogue_url: str, tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    yield database
    database.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[CatalogueDatabase]:
    """A catalogue in a file, for what is the same in both or can only be told of it."""
    database = CatalogueDatabase.open("", tmp_path)
    yield database
    database.close()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"refdesk_{name}", labels) or 0.0


async def test_jobs_are_counted_by_kind_and_how_they_end_and_documents_by_verdict(
    database: CatalogueDatabase,
) -> None:
    free = asyncio.Event()

    async def counted(run: Run) -> Mapping[str, Any]:
        verdicts = [
            Verdict("a", "created", 3),
            Verdict("b", "replaced", 2),
            Verdict("c", "failed", code="no_text", reason="is empty"),
        ]
        await run.checkpoint({"at": 1}, documents=3, chunks=5, verdicts=verdicts)
        await free.wait()
        if run.job.corpus == "bad":
            raise ApiError(422, "bad_thing", "it is bad")
        return {}

    async with running(database, {"counted": counted}, workers=1) as jobs:
        sent = [jobs.submit("counted", name, {}, "me")[0].id for name in ("good", "bad", "c", "d")]
        await until(lambda: metric("jobs_queued", kind="counted") == 3)
        await until(lambda: metric("jobs_running", kind="counted") == 1)
        jobs.cancel(sent[2])
        free.set()
        for one in sent:
            await ended(jobs, one)
        await until(lambda: metric("jobs_queued", kind="counted") == 0)
        await until(lambda: metric("jobs_running", kind="counted") == 0)
    ends = {
        outcome: metric("jobs_finished_total", kind="counted", outcome=outcome)
        for outcome in ("succeeded", "failed", "cancelled")
    }
    total = ends.values()
    assert ends["succeeded"] / 2 == ends["failed"] == ends["cancelled"] == sum(total) / 4 >= 1
    for verdict, chunks in (("created", 3), ("replaced", 2), ("failed", 0)):
        fell = metric("job_documents_total", kind="counted", verdict=verdict)
        assert fell == 3 * ends["failed"]
        assert metric("job_chunks_total", kind="counted", verdict=verdict) == chunks * fell


async def test_a_job_of_an_unknown_kind_says_what_it_waits_for_until_someone_knows_it(
    database: CatalogueDatabase,
) -> None:
    async def work(_: Run) -> Mapping[str, Any]:
        return {}

    async with running(database, {"ingest": work}) as old:
        sent, _ = old.submit("tidy", "c", {}, "me")
        await until(lambda: "newer refdesk" in old.get(sent.id).stage)
        told = old.get(sent.id)
        assert (told.state, told.attempt, told.error) == ("queued", 0, None)
        assert "does not know jobs of this kind" in told.stage
        assert metric("jobs_queued", kind="tidy") == 1
        known, _ = old.submit("ingest", "c", {}, "me")  # it keeps nobody else waiting
        assert (await ended(old, known.id)).state == "succeeded"
        await asyncio.sleep(0.3)
        assert old.get(sent.id).revision == told.revision  # said once
        async with running(database, {"ingest": work, "tidy": work}):
            assert (await ended(old, sent.id)).state == "succeeded"
        unwanted, _ = old.submit("tidy", "c", {}, "me")
        await until(lambda: "newer refdesk" in old.get(unwanted.id).stage)
        assert old.cancel(unwanted.id).stage == "cancelled"


async def test_two_who_do_the_same_jobs_do_each_of_them_once_and_none_beside_its_like(
    catalogue_url: str, tmp_path: Path
) -> None:
    databases = [CatalogueDatabase.open(catalogue_url, tmp_path) for _ in range(2)]
    for one in databases:
        one.exclusive = False  # as where both are replicas
    at_work: list[str] = []
    begun: list[str] = []

    async def work(run: Run) -> Mapping[str, Any]:
        assert run.job.corpus not in at_work
        at_work.append(run.job.corpus)
        begun.append(run.job.id)
        await run.checkpoint({"at": 1}, documents=1)
        at_work.remove(run.job.corpus)
        return {}

    works = {"ingest": work}
    async with running(databases[0], works) as jobs, running(databases[1], works):
        sent = [jobs.submit("ingest", f"c{place % 5}", {}, "me")[0].id for place in range(40)]
        for job_id in sent:
            job = await ended(jobs, job_id)
            assert (job.state, job.attempt) == ("succeeded", 1)
    assert sorted(begun) == sorted(sent)
    for one in databases:
        one.close()


def test_many_jobs_that_wait_to_be_tried_again_keep_no_other_corpus_waiting(
    file: CatalogueDatabase,
) -> None:
    jobs, leases = Jobs(file), Leases(file)
    for place in range(66):
        jobs.submit("ingest", f"c{place}", {}, "me")
    for waiting in leases.waiting(["ingest"]):
        lease = leases.claim(waiting, "w")
        assert lease is not None
        leases.try_again(lease, News(), 600, PASSING, 1)
    jobs.submit("ingest", "other", {}, "me")
    assert [one.wait_s for one in leases.waiting(["ingest"])] == [600] * 66 + [0]


def test_a_thousand_jobs_are_looked_through_at_once_however_long_the_history(
    file: CatalogueDatabase,
) -> None:
    """By what the database does for it, not by the clock: a look reads only what waits."""
    jobs, leases = Jobs(file), Leases(file)
    jobs.submit("ingest", "c", {}, "me")
    lease = leases.claim(leases.waiting(["ingest"])[0], "w")
    assert lease is not None
    leases.finish(lease, News(), "succeeded", "{}")
    with file.begin() as connection:
        row = dict(connection.execute(sa.select(JOBS)).mappings().one())
        rows = [{**row, "number": place, "id": f"j{place}"} for place in range(2, 3_002)]
        connection.execute(sa.insert(JOBS), rows)
        rows = [
            {**row, "number": place, "id": f"j{place}", "state": "queued"}
            for place in range(3_002, 4_002)
        ]
        connection.execute(sa.insert(JOBS), rows)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with file.read() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 1000)
    assert [one.number for one in leases.waiting(["ingest"])] == [3_002]
    assert leases.queued() == {"ingest": 1000}
    assert steps < 200  # thousands of the database's instructions; 40 without the history
