"""The catalogue's database: opened by many at once, newer than us, down, full, damaged."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from services.retrieve.catalogue.database import FILE, CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Run, Verdict
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.jobs.tables import METADATA
from shared.errors import ApiError, StartupError
from tests.fulldisk import files_no_longer_than
from tests.postgres import PASSWORD, Postgres, running_postgres
from tests.suite import free_port
from tests.works import copying, ended, items, running, until


def test_many_open_an_empty_database_at_once(catalogue_url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: CatalogueDatabase.open(catalogue_url, tmp_path), range(6)))
    for database in opened:
        Jobs(database).submit("ingest", "c", {}, "me")
    assert len(Jobs(opened[0]).list()) == 6
    for database in opened:
        database.close()


def test_the_migrations_make_the_tables_that_the_queries_expect(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    with database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
    # Tables of others are there, too; of ours nothing differs.
    assert [one for one in found if "job" in str(one)] == []
    database.close()


def test_a_schema_of_a_newer_version_is_refused_and_left_as_it_is(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StartupError, match=r"has schema 9999.*upgrade refdesk") as caught:
        CatalogueDatabase.open(catalogue_url, tmp_path)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:pssst@127.0.0.1/x", "is not the address of a PostgreSQL"),
        ("pssst", "is not the address of a PostgreSQL"),
        ("postgresql://u:pssst@127.0.0.1:bad/x", "is not the address of a PostgreSQL"),
        ("postgresql://u:pssst@127.0.0.1:PORT/x", "does not answer"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(
    url: str, told: str, tmp_path: Path
) -> None:
    url = url.replace("PORT", str(free_port()))
    with pytest.raises(StartupError, match=told) as caught:
        CatalogueDatabase.open(url, tmp_path)
    assert "pssst" not in str(caught.value)


def test_a_wrong_password_is_told_without_the_password(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database().replace("sesame", "barley")
    with pytest.raises(StartupError, match="authentication failed") as caught:
        CatalogueDatabase.open(url, tmp_path)
    assert "barley" not in str(caught.value)


async def test_jobs_go_on_when_a_server_that_was_down_is_back(tmp_path: Path) -> None:
    with running_postgres() as server:
        database = CatalogueDatabase.open(server.new_database(), tmp_path)
        work = copying(tmp_path / "out", pause_s=0.01)
        async with running(database, {"ingest": work}, lease_s=1.0) as jobs:
            job, _ = jobs.submit("ingest", "c", {}, "me", items=items(80))
            await until(lambda: jobs.get(job.id).progress.documents >= 20)
            server.stop()
            with pytest.raises(ApiError) as caught:
                jobs.get(job.id)
            assert (caught.value.status, caught.value.code) == (503, "catalogue_unavailable")
            assert int(caught.value.headers["Retry-After"]) > 0
            assert PASSWORD not in caught.value.message
            await asyncio.sleep(1)
            server.start()
            job = await ended(jobs, job.id, 60)
        assert (job.state, job.progress.documents) == ("succeeded", 80)
        assert job.verdicts["created"] == 80
        database.close()


def test_a_full_disk_refuses_a_job_whole_and_the_next_one_goes_in(tmp_path: Path) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    jobs = Jobs(database)
    jobs.submit("ingest", "c", {}, "me", items=items(2))
    with files_no_longer_than(1_000_000), pytest.raises(ApiError) as caught:
        jobs.submit("ingest", "c", {}, "me", items=items(40, size=500_000))
    assert (caught.value.status, caught.value.code) == (507, "storage_full")
    assert FILE in caught.value.message
    assert len(jobs.list()) == 1
    jobs.submit("ingest", "c", {}, "me", items=items(40, size=500_000))
    assert len(jobs.list()) == 2
    database.close()


async def test_a_running_job_waits_until_the_disk_has_room_again(tmp_path: Path) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    go_on = asyncio.Event()
    much = [Verdict(f"d{number}", "failed", reason="x" * 1500) for number in range(1500)]

    async def work(run: Run) -> Mapping[str, Any]:
        await run.checkpoint({"at": 1}, stage="at it")
        await go_on.wait()
        await run.checkpoint({"at": 2}, verdicts=much, stage="nearly done")
        return {}

    async with running(database, {"ingest": work}) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me")
        await until(lambda: jobs.get(job.id).stage == "at it")
        with files_no_longer_than(1_000_000):
            go_on.set()
            await asyncio.sleep(1)
            assert jobs.get(job.id).stage == "at it"
        job = await ended(jobs, job.id)
    assert (job.state, job.attempt, job.verdicts["failed"]) == ("succeeded", 1, 1500)
    database.close()


async def test_a_process_that_fails_over_its_catalogue_says_so(tmp_path: Path) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    runner = JobRunner(Jobs(database), {}, turn_s=0.1)
    await runner.start()
    with database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jobs RENAME TO others"))
    await until(lambda: "refdesk failed over the catalogue" in runner.catalogue())
    with database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE others RENAME TO jobs"))
    await until(lambda: runner.catalogue() == "answers")
    await runner.close()
    database.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_gone_takes_no_job_and_the_process_says_so(
    tmp_path: Path, replaced: bool
) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    jobs = Jobs(database)
    runner = JobRunner(jobs, {}, turn_s=0.1)
    await runner.start()
    jobs.submit("ingest", "c", {}, "me")
    assert runner.catalogue() == "answers"
    (tmp_path / FILE).rename(tmp_path / "away.db")
    if replaced:
        (tmp_path / FILE).touch()
    for call in (jobs.list, lambda: jobs.submit("ingest", "c", {}, "me")):
        with pytest.raises(ApiError, match="was removed or replaced") as caught:
            call()
        assert (caught.value.status, caught.value.code) == (503, "catalogue_unavailable")
    assert (tmp_path / FILE).exists() == replaced
    await until(lambda: "was removed or replaced" in runner.catalogue())
    (tmp_path / "away.db").rename(tmp_path / FILE)
    await until(lambda: runner.catalogue() == "answers")
    assert len(jobs.list()) == 1
    await runner.close()
    database.close()


async def test_a_locked_catalogue_keeps_waiting_only_those_who_need_it(tmp_path: Path) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    jobs = Jobs(database)
    sent = [jobs.submit("ingest", "c", {}, "me")[0].id for _ in range(50)]
    with database.begin():
        waiting = [asyncio.create_task(jobs.ask(jobs.cancel, one)) for one in sent]
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "at once"), 5) == "at once"
        assert not any(task.done() for task in waiting)
    assert {job.state for job in await asyncio.gather(*waiting)} == {"cancelled"}
    database.close()


def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    CatalogueDatabase.open("", tmp_path).close()
    (tmp_path / FILE).write_bytes(b"rubbish" * 5000)
    with pytest.raises(StartupError, match=r"catalogue\.db can't be read.*backup"):
        CatalogueDatabase.open("", tmp_path)


def test_what_was_written_is_synced_and_beside_a_writer_others_read(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    jobs = Jobs(database)
    with database.begin() as writing:
        if database.exclusive:
            assert writing.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert writing.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(jobs.list).result(5) == []
    database.close()
