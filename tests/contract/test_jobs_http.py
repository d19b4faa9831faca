"""The routes under /jobs, over HTTP: looking, watching, calling off, and who may."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Run, Verdict
from shared.auth import hash_key
from tests.works import ended, items, serving_jobs, until

KEYS = [
    {"name": "root", "role": "admin"},
    {"name": "editor", "role": "admin", "corpora": ["a"]},
    {"name": "reader", "role": "reader"},
]


@dataclass
class Served:
    """A running service and how to steer its jobs: each ends when its corpus is in `free`."""

    jobs: Jobs
    url: str
    free: set[str]

    def client(self, name: str = "root", **more: Any) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer key-{name}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, **more)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open("", tmp_path)
    yield database
    database.close()


@pytest.fixture
async def served(database: CatalogueDatabase, tmp_path: Path) -> AsyncIterator[Served]:
    keys = tmp_path / "keys.json"
    entries = [{**key, "sha256": hash_key(f"key-{key['name']}")} for key in KEYS]
    keys.write_text(json.dumps({"keys": entries}))
    free: set[str] = set()

    async def work(run: Run) -> Mapping[str, Any]:
        verdicts = [Verdict("x", "created", 3), Verdict("y", "failed", 0, "no_text", "is empty")]
        await run.checkpoint(
            {"at": 2}, documents=2, chunks=3, bytes=10, verdicts=verdicts, total_bytes=100
        )
        while run.job.corpus not in free:  # noqa: ASYNC110 - another thread frees it
            await asyncio.sleep(0.02)
        return {"well": True}

    async with serving_jobs(database, {"ingest": work}, keys_file=keys) as (jobs, url):
        yield Served(jobs, url, free)


async def events(response: httpx.Response) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """The events of a stream, each with its number."""
    number = 0
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            yield number, json.loads(value)


async def test_a_job_is_told_with_all_that_is_known_of_it(served: Served) -> None:
    sent, _ = served.jobs.submit("ingest", "a", {}, "root", items=items(2))
    await until(lambda: served.jobs.get(sent.id).progress.documents == 2)
    async with served.client() as client:
        told = (await client.get(f"/jobs/{sent.id}")).json()
        assert told["state"] == "running"
        assert told["progress"]["total_bytes"] == 100
        assert (told["progress"]["documents"], told["progress"]["chunks"]) == (2, 3)
        assert told["verdicts"] == {
            "created": 1,
            "replaced": 0,
            "unchanged": 0,
            "deleted": 0,
            "failed": 1,
        }
        failed = (await client.get(f"/jobs/{sent.id}/verdicts?status=failed")).json()
        reason = {"id": "y", "status": "failed", "chunks": 0, "code": "no_text"}
        assert failed == {"verdicts": [{**reason, "reason": "is empty"}], "next": None}
        page = (await client.get(f"/jobs/{sent.id}/verdicts?limit=1")).json()
        assert ([one["id"] for one in page["verdicts"]], page["next"]) == (["x"], 1)
        served.free.add("a")
        await ended(served.jobs, sent.id)
        told = (await client.get(f"/jobs/{sent.id}")).json()
        assert (told["state"], told["result"], told["error"]) == ("succeeded", {"well": True}, None)
        refused = await client.post(f"/jobs/{sent.id}/cancel")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_finished")
        assert "succeeded" in refused.json()["error"]["message"]


async def test_jobs_are_listed_newest_first_a_page_at_a_time(served: Served) -> None:
    sent = [served.jobs.submit("other", corpus, {}, "root")[0].id for corpus in "abab"]
    async with served.client() as client:
        first = (await client.get("/jobs?limit=3")).json()
        assert [one["id"] for one in first["jobs"]] == sent[:0:-1]
        rest = (await client.get(f"/jobs?limit=3&after={first['next']}")).json()
        assert ([one["id"] for one in rest["jobs"]], rest["next"]) == (sent[:1], None)
        of_a = (await client.get("/jobs?corpus=a")).json()["jobs"]
        assert [one["id"] for one in of_a] == [sent[2], sent[0]]
        assert (await client.get("/jobs?state=running")).json()["jobs"] == []
        for bad in ("state=lost", "limit=0", "limit=x"):
            assert (await client.get(f"/jobs?{bad}")).status_code == 422
        assert (await client.get("/jobs?after=nothing")).status_code == 404
        assert (await client.get("/jobs?corpus=%00%ED%A0%80")).json()["jobs"] == []


@pytest.mark.parametrize("name", ["editor", "reader"])
async def test_a_job_of_a_corpus_that_one_may_not_write_is_not_there(
    served: Served, name: str
) -> None:
    hidden = served.jobs.submit("other", "b", {}, "root")[0].id
    mine = served.jobs.submit("other", "a", {}, "root")[0].id
    async with served.client(name) as client:
        seen = [one["id"] for one in (await client.get("/jobs")).json()["jobs"]]
        assert seen == ([mine] if name == "editor" else [])
        for job in (hidden, "nothing", "%00", "x" * 64):
            for path in ("", "/verdicts", "/events"):
                answer = await client.get(f"/jobs/{job}{path}")
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    404,
                    "job_not_found",
                )
            assert (await client.post(f"/jobs/{job}/cancel")).status_code == 404
    assert served.jobs.get(hidden).state == "queued"


async def test_a_cancel_is_answered_when_the_job_is_over(served: Served) -> None:
    sent, _ = served.jobs.submit("ingest", "a", {}, "root")
    await until(lambda: served.jobs.get(sent.id).progress.documents == 2)
    async with served.client() as client:
        both = await asyncio.gather(*(client.post(f"/jobs/{sent.id}/cancel") for _ in range(2)))
        for answer in both:
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert (await client.post(f"/jobs/{sent.id}/cancel")).json()["state"] == "cancelled"


async def test_a_watcher_sees_every_state_and_the_stream_ends_with_the_job(
    served: Served,
) -> None:
    sent, _ = served.jobs.submit("ingest", "a", {}, "root")

    async def watch(after: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        headers = {} if after is None else {"last-event-id": str(after)}
        path = f"/jobs/{sent.id}/events"
        async with client.stream("GET", path, headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            found = []
            async for number, job in events(response):
                found.append((number, job))
                if job["progress"]["documents"] == 2:
                    served.free.add("a")
            return found

    async with served.client() as client:
        several = await asyncio.gather(*(watch() for _ in range(20)))
        for seen in several:
            numbers = [number for number, _ in seen]
            assert numbers == sorted(set(numbers))
            assert seen[-1][1]["state"] == "succeeded"
        last = several[0][-1][0]
        again = await watch(last - 1)
        assert [number for number, _ in again] == [last]
        assert (await watch(10**17))[0][0] == last
        over = await client.get(f"/jobs/{sent.id}/events", headers={"last-event-id": str(last)})
        assert (over.status_code, over.content) == (204, b"")


async def test_a_watcher_who_comes_again_misses_nothing(served: Served) -> None:
    sent, _ = served.jobs.submit("ingest", "a", {}, "root")
    await until(lambda: served.jobs.get(sent.id).progress.documents == 2)
    path = f"/jobs/{sent.id}/events"
    async with served.client() as client:
        async with client.stream("GET", path) as response:
            last, job = await anext(events(response))
            assert job["state"] == "running"
        # Its own patience ends first: the stream ends well, a moment before the deadline.
        headers = {"last-event-id": str(last), "x-deadline-ms": "1200"}
        async with client.stream("GET", path, headers=headers) as response:
            assert [one async for one in events(response)] == []
        served.free.add("a")
        await ended(served.jobs, sent.id)
        headers = {"last-event-id": str(last)}
        async with client.stream("GET", path, headers=headers) as response:
            found = [one async for one in events(response)]
        assert found[-1][1]["state"] == "succeeded"
        assert found[0][0] > last
