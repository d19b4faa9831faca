"""The command `refdesk jobs`, against a real service whose jobs do real work."""

import asyncio
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog.testing

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Run, Verdict
from shared.cli import patience
from shared.errors import ApiError
from tests.e2e.command import Running, one_error, refdesk, wait_until
from tests.suite import free_port
from tests.works import serving_jobs


@dataclass
class Served:
    """A service in a thread of this process. free: lets its jobs end."""

    jobs: Jobs
    url: str
    free: threading.Event


async def _fail(_: Run) -> Mapping[str, Any]:
    raise ApiError(409, "model_mismatch", "another\nmodel \x1b[31mmade it")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    free, stop, ready = threading.Event(), threading.Event(), threading.Event()
    found: list[Served] = []

    async def work(run: Run) -> Mapping[str, Any]:
        verdicts = [Verdict("good.md", "created", 3), Verdict("bad.pdf", "failed", reason="broken")]
        await run.checkpoint({"at": 1}, documents=2, verdicts=verdicts, total_documents=2)
        await asyncio.to_thread(free.wait, 60)
        return {}

    async def main() -> None:
        database = CatalogueDatabase.open("", tmp_path)
        async with serving_jobs(database, {"ingest": work, "reindex": _fail}) as (jobs, url):
            found.append(Served(jobs, url, free))
            ready.set()
            await asyncio.to_thread(stop.wait)
        database.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    # Its log would be among what the commands print.
    with structlog.testing.capture_logs():
        thread.start()
        assert ready.wait(30)
        yield found[0]
        free.set()
        stop.set()
        thread.join()


def test_jobs_are_listed_and_shown(served: Served) -> None:
    assert "no such jobs" in refdesk("jobs", "list", "--url", served.url).stderr
    job, _ = served.jobs.submit("ingest", "handbook", {}, "me")
    wait_until(lambda: served.jobs.get(job.id).progress.documents == 2)
    listed = refdesk("jobs", "list", "--url", served.url)
    assert listed.returncode == 0
    assert job.id in listed.stdout
    assert "2 of 2" in listed.stdout
    empty = refdesk(
        "jobs", "list", "--state", "queued", "--corpus", "handbook", "--url", served.url
    )
    assert job.id not in empty.stdout
    told = orjson.loads(refdesk("jobs", "list", "--json", "--url", served.url).stdout)
    assert told["jobs"][0]["id"] == job.id
    port = served.url.rpartition(":")[2]
    alone = refdesk("jobs", env={"REFDESK_RETRIEVE_PORT": port})
    assert job.id in alone.stdout
    shown = refdesk("jobs", "show", job.id, "--url", served.url).stdout
    assert "failed: bad.pdf: broken" in shown
    assert (
        orjson.loads(refdesk("jobs", "show", job.id, "--json", "--url", served.url).stdout)
        == told["jobs"][0]
    )
    wrong = refdesk("jobs", "list", "--state", "lost", "--url", served.url)
    assert "state" in one_error(wrong)


def test_a_job_is_watched_to_its_end(served: Served) -> None:
    job, _ = served.jobs.submit("ingest", "handbook", {}, "me")
    command = Running("jobs", "watch", job.id, "--url", served.url, env={})
    wait_until(lambda: served.jobs.get(job.id).progress.documents == 2)
    served.free.set()
    assert command.process.wait(60) == 0
    wait_until(lambda: "failed: bad.pdf: broken" in command.output)


def test_whoever_stops_watching_leaves_the_job_at_work(served: Served) -> None:
    job, _ = served.jobs.submit("ingest", "handbook", {}, "me")
    wait_until(lambda: served.jobs.get(job.id).state == "running")
    command = Running("jobs", "watch", job.id, "--url", served.url, env={})
    wait_until(lambda: command.process.poll() is not None or _waits(command.process.pid))
    assert command.stop(signal.SIGINT) == 130
    assert served.jobs.get(job.id).state == "running"


def _waits(pid: int) -> bool:
    """Whether a process has got as far as its HTTP client."""
    return "_ssl" in Path(f"/proc/{pid}/maps").read_text()


def test_a_job_that_failed_says_why_on_one_line(served: Served) -> None:
    job, _ = served.jobs.submit("reindex", "handbook", {}, "me")
    wait_until(lambda: served.jobs.get(job.id).over)
    watched = refdesk("jobs", "watch", job.id, "--url", served.url)
    assert watched.returncode == 1
    error = watched.stderr.strip().splitlines()[-1]
    assert error == f"error: job {job.id} failed: another model [31mmade it"


def test_a_job_is_cancelled_and_an_ended_one_says_so(served: Served) -> None:
    job, _ = served.jobs.submit("ingest", "handbook", {}, "me")
    wait_until(lambda: served.jobs.get(job.id).progress.documents == 2)
    done = refdesk("jobs", "cancel", job.id, "--url", served.url)
    assert (done.returncode, done.stderr) == (0, f"cancelled job {job.id}\n")
    assert served.jobs.get(job.id).state == "cancelled"
    watched = refdesk("jobs", "watch", job.id, "--url", served.url)
    assert "was cancelled" in watched.stderr
    failed, _ = served.jobs.submit("reindex", "handbook", {}, "me")
    wait_until(lambda: served.jobs.get(failed.id).over)
    assert "is over already" in one_error(refdesk("jobs", "cancel", failed.id, "--url", served.url))
    for command in ("show", "watch", "cancel"):
        error = one_error(refdesk("jobs", command, "no/such job", "--url", served.url))
        assert "no" in error


def test_without_a_service_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "does not answer" in one_error(refdesk("jobs", "list", "--url", nobody))
    monkeypatch.setattr(patience, "AWAY_S", 1.0)
    watched = refdesk("jobs", "watch", "some", "--url", nobody)
    waits, error = watched.stderr.splitlines()
    assert waits.endswith("; waiting for it")
    assert error.startswith("error: ")
    assert "does not answer" in error
