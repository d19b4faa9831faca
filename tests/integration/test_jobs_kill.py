"""kill -9 of processes that do jobs, at random moments: each job is done, once in the end, or given
up; none is stuck."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from tests.suite import REPOSITORY
from tests.works import ended, items, until

SEED = 5
ITEMS = 60


@contextmanager
def process(url: str, folder: Path, lease_s: float = 1.0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does jobs; it is killed when the block ends."""
    command = [sys.executable, "-m", "tests.integration.job_process", url, str(folder)]
    with (folder / "process.log").open("ab") as log:
        running = subprocess.Popen([*command, str(lease_s)], cwd=REPOSITORY, stdout=log, stderr=log)
    with running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture
def database(catalogue_url: str, tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    yield database
    database.close()


@pytest.mark.parametrize("kills", [1, pytest.param(60, marks=pytest.mark.long)])
async def test_a_job_goes_on_where_it_was_however_often_its_process_is_killed(
    database: CatalogueDatabase, catalogue_url: str, tmp_path: Path, kills: int
) -> None:
    jobs, chance = Jobs(database), random.Random(SEED)
    sent, _ = jobs.submit("ingest", "c", {}, "me", items=items(ITEMS * kills))
    seen = 0
    for _ in range(kills):
        with process(catalogue_url, tmp_path):
            give_up = time.monotonic() + 30
            while jobs.get(sent.id).progress.documents <= seen:
                assert time.monotonic() < give_up
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.uniform(0, 0.3))
        seen = jobs.get(sent.id).progress.documents
        assert jobs.get(sent.id).state == "running"
    with process(catalogue_url, tmp_path):
        job = await ended(jobs, sent.id, 120)
    assert (job.state, job.attempt) == ("succeeded", kills + 1)
    # Each item is told of once, though some were done twice.
    assert job.progress.documents == job.verdicts["created"] == ITEMS * kills
    found, _ = jobs.verdicts(sent.id, limit=ITEMS * kills)
    assert [one.id for one in found] == [f"{number}.txt" for number in range(ITEMS * kills)]
    lines = (tmp_path / "out" / "log").read_text().splitlines()
    assert {line.split()[1] for line in lines} == {one.id for one in found}
    attempts = [int(line.split()[0]) for line in lines]
    assert attempts == sorted(attempts)  # never two at work on it at a time


@pytest.mark.parametrize("catalogue_url", ["sqlite"], indirect=True)  # processes start slowly
async def test_a_job_that_kills_its_process_is_given_up_and_the_next_one_done(
    database: CatalogueDatabase, catalogue_url: str, tmp_path: Path
) -> None:
    jobs = Jobs(database)
    bad, _ = jobs.submit("poison", "c", {}, "me")
    for _ in range(3):
        with process(catalogue_url, tmp_path, lease_s=0.2) as dying:
            dying.wait(30)
    good, _ = jobs.submit("ingest", "c", {}, "me", items=items(3))
    with process(catalogue_url, tmp_path, lease_s=0.2):
        job = await ended(jobs, bad.id)
        assert (await ended(jobs, good.id)).state == "succeeded"
    assert (job.state, job.attempt) == ("failed", 3)
    assert job.error is not None
    assert job.error.code == "job_died"


@pytest.mark.parametrize("catalogue_url", ["postgres"], indirect=True)  # which replicas share
async def test_a_process_that_stood_still_past_its_lease_writes_nothing_more(
    database: CatalogueDatabase, catalogue_url: str, tmp_path: Path
) -> None:
    jobs = Jobs(database)
    sent, _ = jobs.submit("ingest", "c", {}, "me", items=items(ITEMS))
    with process(catalogue_url, tmp_path, lease_s=0.5) as stopped:
        await until(lambda: jobs.get(sent.id).progress.documents > 0)
        stopped.send_signal(signal.SIGSTOP)
        with process(catalogue_url, tmp_path, lease_s=0.5):
            while jobs.get(sent.id).attempt == 1:
                with suppress(TimeoutError):
                    await until(lambda: jobs.get(sent.id).attempt == 2, 10)
                stopped.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.05)  # or it has hold of the catalogue, and is stopped again
                if jobs.get(sent.id).attempt == 1:
                    stopped.send_signal(signal.SIGSTOP)
            job = await ended(jobs, sent.id)
        assert stopped.poll() is None
    assert (job.state, job.attempt, job.progress.documents) == ("succeeded", 2, ITEMS)
    attempts = [
        int(line.split()[0]) for line in (tmp_path / "out" / "log").read_text().splitlines()
    ]
    assert attempts == sorted(attempts)
