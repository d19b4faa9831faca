"""Jobs as they are done, in both databases: to their end, called off, tried again, taken up."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.attend import Patience
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.leases import Leases
from services.retrieve.jobs.model import LeaseLostError, Run, Verdict
from services.retrieve.jobs.run import Attempt
from services.retrieve.jobs.runner import TURN_S
from services.retrieve.jobs.tables import ITEMS
from shared.errors import ApiError
from tests.works import copying, ended, items, running, until


@pytest.fixture
def database(catalogue_url: str, tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    yield database
    database.close()


def payload_rows(database: CatalogueDatabase) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(ITEMS)).scalar_one())


async def forever(run: Run) -> Mapping[str, Any]:
    await run.checkpoint({"at": 1}, stage="waiting for nothing")
    await asyncio.Event().wait()
    return {}


async def test_a_job_is_done_and_its_payload_goes(
    database: CatalogueDatabase, tmp_path: Path
) -> None:
    async with running(database, {"ingest": copying(tmp_path / "out")}) as jobs:
        job, new = await asyncio.to_thread(
            jobs.submit, "ingest", "c", {"why": "a test"}, "me", items=items(10)
        )
        assert (new, job.state, job.attempt) == (True, "queued", 0)
        job = await ended(jobs, job.id)
        assert (job.state, job.result, job.error) == ("succeeded", {"last": 9}, None)
        assert (job.progress.documents, job.progress.bytes) == (10, 100)
        assert job.verdicts["created"] == 10
        assert job.started_at is not None
        assert job.finished_at is not None
        assert job.request == {"why": "a test"}
        found, more = jobs.verdicts(job.id, limit=4)
        assert [one.id for one in found] == ["0.txt", "1.txt", "2.txt", "3.txt"]
        rest, end = jobs.verdicts(job.id, limit=100, after=more or 0)
        assert (len(rest), end) == (6, None)
        assert jobs.verdicts(job.id, "failed") == ([], None)
        await until(lambda: payload_rows(database) == 0)
    assert (tmp_path / "out" / "7.txt").read_bytes() == b"\7" * 10


async def test_jobs_of_one_corpus_are_done_in_order_and_those_of_others_beside_them(
    database: CatalogueDatabase,
) -> None:
    at_work: list[str] = []
    most, order = 0, []

    async def work(run: Run) -> Mapping[str, Any]:
        nonlocal most
        assert run.job.corpus not in at_work
        at_work.append(run.job.corpus)
        most = max(most, len(at_work))
        await asyncio.sleep(0.1)
        at_work.remove(run.job.corpus)
        order.append(run.job.id)
        return {}

    async with running(database, {"ingest": work}, workers=2) as jobs:
        sent = [jobs.submit("ingest", corpus, {}, "me")[0].id for corpus in "aababb"]
        for one in sent:
            await ended(jobs, one)
    assert most == 2
    for corpus in "ab":
        mine = [one for one, name in zip(sent, "aababb", strict=True) if name == corpus]
        assert [one for one in order if one in mine] == mine


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_running_job_is_cancelled_within_two_seconds_even_one_that_does_not_listen(
    database: CatalogueDatabase, deaf: bool
) -> None:
    free = threading.Event()

    async def work(run: Run) -> Mapping[str, Any]:
        await run.checkpoint({"at": 1}, stage="at it")
        while deaf and not free.is_set():
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue
        return await forever(run)

    async with running(database, {"ingest": work}, turn_s=TURN_S) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me", items=items(2))
        await until(lambda: jobs.get(job.id).stage == ("at it" if deaf else "waiting for nothing"))
        began = time.monotonic()
        # One of them as another replica would, which can't wake this one.
        (jobs if deaf else Jobs(database)).cancel(job.id)
        job = await ended(jobs, job.id)
        assert time.monotonic() - began < 2
        assert (job.state, job.error) == ("cancelled", None)
        assert jobs.cancel(job.id).state == "cancelled"
        await until(lambda: payload_rows(database) == 0)
        free.set()


async def test_a_queued_job_is_cancelled_at_once_and_an_ended_one_says_how_it_ended(
    database: CatalogueDatabase,
) -> None:
    async def fails(run: Run) -> Mapping[str, Any]:
        raise ApiError(422, "bad_thing", "it is bad", param="documents.0")

    idle = Jobs(database)
    queued, _ = idle.submit("ingest", "c", {}, "me")
    assert idle.cancel(queued.id).state == "cancelled"
    async with running(database, {"ingest": fails}) as jobs:
        job = await ended(jobs, jobs.submit("ingest", "c", {}, "me")[0].id)
        assert (job.state, job.attempt) == ("failed", 1)
        assert job.error is not None
        assert (job.error.code, job.error.param) == ("bad_thing", "documents.0")
        with pytest.raises(ApiError, match="it failed: it is bad") as caught:
            jobs.cancel(job.id)
        assert (caught.value.status, caught.value.code) == (409, "job_finished")


async def test_what_may_pass_is_tried_again_from_the_cursor_until_it_is_given_up(
    database: CatalogueDatabase,
) -> None:
    cursors: list[Any] = []

    async def work(run: Run) -> Mapping[str, Any]:
        cursors.append(run.cursor)
        if run.job.attempt == 1:
            await run.checkpoint({"at": 5}, documents=5)
        if run.job.attempt < 4:
            raise ApiError(503, "unreachable", "embed does not answer")
        if run.job.attempt == 4:
            await run.checkpoint({"at": 6}, documents=1)
        raise ConnectionResetError("gone")

    async with running(database, {"ingest": work}) as jobs:
        job = await ended(jobs, jobs.submit("ingest", "c", {}, "me")[0].id)
    # Three failures at 5 (the first with the step to it), four at 6.
    assert cursors == [None, *[{"at": 5}] * 3, *[{"at": 6}] * 3]
    assert (job.state, job.attempt, job.progress.documents) == ("failed", 7, 6)
    assert job.error is not None
    assert job.error.code == "unreachable"


async def test_a_wait_is_as_long_as_the_other_side_asks_and_can_be_seen_and_cancelled(
    database: CatalogueDatabase,
) -> None:
    async def work(run: Run) -> Mapping[str, Any]:
        raise ApiError(429, "queue_full", "too much", headers={"Retry-After": "30"})

    async with running(database, {"ingest": work}) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me")
        await until(lambda: jobs.get(job.id).error is not None)
        job = jobs.get(job.id)
        assert (job.state, job.attempt) == ("queued", 1)
        assert job.stage.startswith("waiting to be tried again at 20")
        assert job.error is not None
        assert job.error.code == "queue_full"
        await asyncio.sleep(0.25)
        assert jobs.get(job.id).attempt == 1
        assert jobs.cancel(job.id).state == "cancelled"


async def test_a_defect_ends_a_job_at_once_and_tells_no_secrets(
    database: CatalogueDatabase,
) -> None:
    async def work(run: Run) -> Mapping[str, Any]:
        raise ZeroDivisionError("the password is open-sesame")

    async def unspeakable(run: Run) -> Mapping[str, Any]:
        return {"result": object()}

    async with running(database, {"a": work, "b": unspeakable}) as jobs:
        for kind in ("a", "b"):
            job = await ended(jobs, jobs.submit(kind, "c", {}, "me")[0].id)
            assert (job.state, job.attempt) == ("failed", 1)
            assert job.error is not None
            assert job.error.code == "internal_error"
            assert "sesame" not in job.error.message


async def test_a_stopping_process_gives_its_jobs_back_with_their_cursor(
    database: CatalogueDatabase, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    async with running(database, {"ingest": copying(out, pause_s=0.05)}) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me", items=items(20))
        await until(lambda: jobs.get(job.id).progress.documents >= 5)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    job = jobs.get(job.id)
    assert (job.state, job.attempt) == ("queued", 1)
    done = job.progress.documents
    assert 5 <= done < 20
    assert job.cursor == {"seq": done - 1}
    async with running(database, {"ingest": copying(out)}) as jobs:
        job = await ended(jobs, job.id)
    assert (job.state, job.attempt, job.progress.documents) == ("succeeded", 2, 20)
    names = [line.split()[1] for line in (out / "log").read_text().splitlines()]
    assert len(names) <= 21
    assert len(set(names)) == 20


async def test_a_dead_workers_job_is_taken_up_once_its_lease_has_run_out(
    database: CatalogueDatabase, tmp_path: Path
) -> None:
    leases, idle = Leases(database), Jobs(database)
    job, _ = idle.submit("ingest", "c", {}, "me", items=items(3))
    dead = leases.claim(leases.waiting(["ingest"])[0], "dead")
    assert dead is not None
    upload = idle.submit  # a caller that went in the middle of an upload left this behind

    def broken() -> Iterator[Any]:
        yield from items(300)
        raise ConnectionError("the caller has gone")

    with pytest.raises(ConnectionError):
        upload("ingest", "c", {}, "me", items=broken())
    work = {"ingest": copying(tmp_path / "out")}
    async with running(database, work, lease_s=0.5) as jobs:
        job = await ended(jobs, job.id)
        assert (job.state, job.attempt) == ("succeeded", 2)
        await until(lambda: payload_rows(database) == 0)


async def test_an_attempt_is_sure_of_its_job_only_after_a_sign_of_life(
    database: CatalogueDatabase,
) -> None:
    leases = Leases(database)
    Jobs(database).submit("ingest", "c", {}, "me")
    lease = leases.claim(leases.waiting(["ingest"])[0], "stopped")
    assert lease is not None
    with ThreadPoolExecutor(1) as threads:
        run = Attempt(leases, lease, threads, lambda: None, sure_s=60)
        assert leases.take(leases.signs()[0], Patience().deaths)  # it stood still meanwhile
        with pytest.raises(LeaseLostError):
            await run.assure()


async def test_a_sign_of_life_before_the_end_is_written_tells_nothing_twice(
    database: CatalogueDatabase,
) -> None:
    leases, jobs = Leases(database), Jobs(database)
    sent, _ = jobs.submit("ingest", "c", {}, "me")
    lease = leases.claim(leases.waiting(["ingest"])[0], "w")
    assert lease is not None
    with ThreadPoolExecutor(1) as threads:
        run = Attempt(leases, lease, threads, lambda: None, sure_s=60)
        for name in ("told", "untold"):  # the second one follows too soon to be told by itself
            await run.checkpoint({"at": name}, documents=1, verdicts=[Verdict(name, "created")])
        rest = await run.rest()
        await run.tell()
    leases.finish(lease, rest, "succeeded")
    job = jobs.get(sent.id)
    assert job.progress.documents == job.verdicts["created"] == 2
    assert [one.id for one in jobs.verdicts(sent.id)[0]] == ["told", "untold"]


async def test_a_job_that_every_process_dies_of_is_given_up(
    database: CatalogueDatabase,
) -> None:
    leases, jobs = Leases(database), Jobs(database)
    job, _ = jobs.submit("ingest", "c", {}, "me")
    for death in range(3):
        assert leases.claim(leases.waiting(["ingest"])[0], f"w{death}") is not None
        assert leases.take(leases.signs()[0], Patience().deaths)
    job = jobs.get(job.id)
    assert (job.state, job.attempt) == ("failed", 3)
    assert job.error is not None
    assert job.error.code == "job_died"
    assert leases.waiting(["ingest"]) == []


async def test_many_checkpoints_are_few_transactions_and_lose_nothing(
    database: CatalogueDatabase,
) -> None:
    async def work(run: Run) -> Mapping[str, Any]:
        for number in range(2000):
            verdict = Verdict(f"d\0{number}", "failed", code="no_text", reason="half \ud800")
            await run.checkpoint(
                {"at": number}, documents=1, bytes=7, verdicts=[verdict], total_documents=2000
            )
        return {}

    async with running(database, {"ingest": work}) as jobs:
        job = await ended(jobs, jobs.submit("ingest", "c", {}, "me")[0].id)
    assert job.progress.documents == job.progress.total_documents == 2000
    assert (job.progress.bytes, job.verdicts["failed"]) == (14000, 2000)
    assert job.revision < 100
    found, _ = jobs.verdicts(job.id, "failed", limit=10_000)
    assert [int(one.id.partition("�")[2]) for one in found] == list(range(2000))
