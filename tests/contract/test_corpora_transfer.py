"""Corpora over HTTP as files: exports, imports, backups and restores."""

import asyncio
import hashlib
import io
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.shelf import QUERY, TEXTS, desk, fixed, peer, with_peer
from tests.suite import Suite

Client = httpx.AsyncClient
DOCUMENTS: list[dict[str, Any]] = [
    {"id": key, "text": text, "title": key.title(), "metadata": {"length": len(text)}}
    for key, text in TEXTS.items()
]
DOCUMENTS[0]["readers"] = ["hr"]
DOCUMENTS.append(
    {"id": "page", "format": "html", "text": "<h1>Cats</h1><p>Cats sleep for a &lt; b hours.</p>"}
)
KINDS = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def served(
    suite: Suite, folder: Path, work: Callable[[Client], Awaitable[Any]], **more: Any
) -> Any:
    """Run `work` with a client of a desk over a folder."""

    async def main() -> Any:
        async with desk(folder, embed=suite.url("embed"), **more) as client:
            return await work(client)

    return asyncio.run(main())


async def fill(client: Client, name: str = "shelf", **settings: Any) -> None:
    (await client.put(f"/corpora/{name}", json=settings)).raise_for_status()
    answer = await client.post(f"/corpora/{name}/documents", json={"documents": DOCUMENTS})
    answer.raise_for_status()


async def found(client: Client, corpus: str) -> list[tuple[str, str, float]]:
    hits = []
    for query in (QUERY, "cats", "castling king", "bread flour"):
        body = {"query": query, "corpora": [corpus], "curate": False, "top_k": 10}
        answer = await client.post("/retrieve", json=body)
        assert answer.status_code == 200, answer.text
        hits += [(hit["id"], hit["text"], hit["score"]) for hit in answer.json()["hits"]]
    return hits


async def load(client: Client, name: str, data: bytes, kind: str) -> dict[str, Any]:
    """Send documents and wait for the job."""
    (await client.put(f"/corpora/{name}", json={})).raise_for_status()
    headers = {"content-type": kind}
    sent = await client.post(f"/corpora/{name}/ingest", content=data, headers=headers)
    assert sent.status_code == 202, sent.text
    while True:
        job: dict[str, Any] = (await client.get(f"/jobs/{sent.json()['id']}")).json()
        if job["state"] not in ("queued", "running"):
            return job
        await asyncio.sleep(0.05)


async def backed_up(client: Client, name: str = "shelf") -> httpx.Response:
    answer = await client.get(f"/corpora/{name}/backup")
    assert answer.status_code == 200, answer.text
    return answer


async def restored(client: Client, name: str, data: bytes, **more: Any) -> httpx.Response:
    return await client.post(f"/corpora/{name}/restore", content=data, timeout=120, **more)


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, error
    return error


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
@pytest.mark.parametrize("vectors", [True, False])
def test_what_was_exported_and_loaded_again_is_found_alike(
    suite: Suite, tmp_path: Path, form: str, vectors: bool
) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        told = "true" if vectors else "false"
        path = f"/corpora/shelf/export?format={form}&vectors={told}"
        exported = await client.get(path)
        assert exported.status_code == 200
        assert exported.headers["content-type"] == KINDS[form]
        assert f"shelf.{form}" in exported.headers["content-disposition"]
        job = await load(client, "copy", exported.content, KINDS[form])
        assert job["state"] == "succeeded", job
        assert job["verdicts"]["created"] == len(DOCUMENTS)
        before, after = await found(client, "shelf"), await found(client, "copy")
        assert [one[:2] for one in after] == [one[:2] for one in before]
        assert [one[2] for one in after] == pytest.approx([one[2] for one in before], abs=1e-3)
        for key in ("moon", "page"):
            one = (await client.get(f"/corpora/shelf/documents/{key}")).json()
            other = (await client.get(f"/corpora/copy/documents/{key}")).json()
            same = {"id", "title", "url", "text", "metadata", "readers", "chunks"}
            assert {name: one[name] for name in same} == {name: other[name] for name in same}
        # The same file once more changes nothing.
        again = await load(client, "copy", exported.content, KINDS[form])
        assert again["verdicts"]["unchanged"] == len(DOCUMENTS)

    served(suite, tmp_path, work)


def test_both_forms_of_an_export_cut_the_documents_alike(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        data = (await client.get("/corpora/shelf/export?vectors=true")).content
        lines = [json.loads(line) for line in data.splitlines()]
        answer = await client.get("/corpora/shelf/export?format=parquet&vectors=true")
        table = pq.read_table(io.BytesIO(answer.content))
        assert table.column("id").to_pylist() == [line["id"] for line in lines]
        rows = table.column("chunks").to_pylist()
        spans = [[(one["start"], one["end"]) for one in row] for row in rows]
        assert spans == [[(one["start"], one["end"]) for one in line["chunks"]] for line in lines]

    served(suite, tmp_path, work)


def test_a_backup_restores_on_another_machine(suite: Suite, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "description": "old",
        "readers": ["hr"],
        "recency": {"half_life_days": 9},
    }

    async def back_up(client: Client) -> tuple[bytes, Any, Any]:
        await fill(client, **settings)
        answer = await backed_up(client)
        assert int(answer.headers["content-length"]) == len(answer.content)
        sha256 = hashlib.sha256(answer.content).hexdigest()
        assert answer.headers["x-content-sha256"] == sha256
        corpus = (await client.get("/corpora/shelf")).json()
        return answer.content, corpus, await found(client, "shelf")

    data, corpus, hits = served(suite, tmp_path / "one", back_up)
    assert list((tmp_path / "one" / "transfers").iterdir()) == []

    async def restore(client: Client) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        wrong = await restored(client, "again", data, headers={"x-content-sha256": "0" * 64})
        error_of(wrong, 422, "broken_backup")
        answer = await restored(client, "again", data, headers={"x-content-sha256": sha256})
        assert answer.status_code == 201, answer.text
        told = answer.json()
        assert told["notes"] == []
        assert told["backup"]["name"] == "shelf"
        assert told["backup"]["documents"] == len(DOCUMENTS)
        changed = {"name": "again", "created_at": None, "writes": None}
        assert {**told["corpus"], **changed} == {**corpus, **changed}
        assert await found(client, "again") == hits
        # It is a corpus as any other: what is sent again has not changed.
        body = {"documents": DOCUMENTS}
        written = await client.post("/corpora/again/documents", json=body)
        assert {one["status"] for one in written.json()["results"]} == {"unchanged"}

    served(suite, tmp_path / "two", restore)

    async def still(client: Client) -> None:
        assert await found(client, "again") == hits

    served(suite, tmp_path / "two", still)
    assert list((tmp_path / "two" / "transfers").iterdir()) == []


def test_a_backup_takes_the_place_of_a_corpus_only_when_told_to(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        data = (await backed_up(client)).content
        later = {"documents": [{"id": "later", "text": "Written after the backup."}]}
        await client.post("/corpora/shelf/documents", json=later)
        error_of(await restored(client, "shelf", data), 409, "corpus_exists")
        assert (await client.get("/corpora/shelf/documents/later")).status_code == 200
        answer = await restored(client, "shelf", data, params={"replace": True})
        assert answer.status_code == 200, answer.text
        assert answer.json()["corpus"]["generation"] == 2
        assert (await client.get("/corpora/shelf/documents/later")).status_code == 404
        stats = (await client.get("/corpora/shelf/stats")).json()
        states = {one["state"]: one for one in stats["generations"]}
        assert set(states) == {"live", "previous"}
        assert states["previous"]["until"] is not None
        written = await client.post("/corpora/shelf/documents", json=later)
        assert written.status_code == 200
        assert (await restored(client, "new", data, params={"replace": True})).status_code == 201

    served(suite, tmp_path, work)


def test_a_corpus_of_another_model_comes_back_and_says_so(suite: Suite, tmp_path: Path) -> None:
    async def back_up(client: Client) -> bytes:
        await fill(client)
        return (await backed_up(client)).content

    data = served(suite, tmp_path / "one", back_up)
    info = {**httpx.get(f"{suite.url('embed')}/info").json(), "revision": "another"}

    async def restore(embed: str) -> None:
        async with desk(tmp_path / "two", embed=embed) as client:
            answer = await restored(client, "shelf", data)
            assert answer.status_code == 201
            (note,) = answer.json()["notes"]
            assert "another" in note
            body = {"query": QUERY, "corpora": ["shelf"]}
            error_of(await client.post("/retrieve", json=body), 409, "model_mismatch")

    with_peer(peer(info, fixed(b"{}")), restore)

    async def alone(client: Client) -> None:
        answer = await restored(client, "other", data)
        assert answer.status_code == 201
        assert "embed" in answer.json()["notes"][0]

    async def nobody() -> None:
        async with desk(tmp_path / "two") as client:
            await alone(client)

    asyncio.run(nobody())


def test_uploads_that_are_no_backup_are_refused_and_leave_nothing(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        data = (await backed_up(client)).content
        plain = sqlite3.connect(":memory:")
        with closing(plain):
            plain.execute("CREATE TABLE meta (name, value)")
            other = plain.serialize()
        for body, code in (
            (b"", "not_a_backup"),
            (b"{}", "not_a_backup"),
            (other, "not_a_backup"),
            (data[: len(data) // 2], "broken_backup"),
            (data[:100] + bytes(len(data) - 100), "broken_backup"),
        ):
            error_of(await restored(client, "bad", body), 422, code)
        error_of(await restored(client, "Bad Name", data), 422, "bad_corpus_name")
        listed = (await client.get("/corpora")).json()["corpora"]
        assert [one["name"] for one in listed] == ["shelf"]
        assert list((tmp_path / "transfers").iterdir()) == []
        error_of(await client.get("/corpora/none/backup"), 404, "corpus_not_found")
        error_of(await client.get("/corpora/none/export"), 404, "corpus_not_found")
        refused = await client.get("/corpora/shelf/export?format=csv")
        error_of(refused, 422, "invalid_request")

    served(suite, tmp_path, work)


def test_a_backup_may_be_larger_than_other_bodies_up_to_its_own_limit(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        data = (await backed_up(client)).content
        assert len(data) > 50_000
        assert (await restored(client, "again", data)).status_code == 201
        too_large = b"SQLite format 3\0" + bytes(1024 * 1024)
        error_of(await restored(client, "large", too_large), 413, "body_too_large")

    served(suite, tmp_path, work, max_body_bytes=50_000, max_restore_mb=1)


def test_two_restores_of_one_name_give_one_corpus(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await fill(client)
        data = (await backed_up(client)).content
        answers = await asyncio.gather(*(restored(client, "again", data) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        assert await found(client, "again") == await found(client, "shelf")

    served(suite, tmp_path, work)


def test_without_the_extra_parquet_is_said_to_be_missing(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    async def work(client: Client) -> None:
        await fill(client)
        answer = await client.get("/corpora/shelf/export?format=parquet")
        assert "parquet" in error_of(answer, 501, "no_parquet")["message"]
        headers = {"content-type": KINDS["parquet"]}
        sent = await client.post("/corpora/shelf/ingest", content=b"PAR1", headers=headers)
        error_of(sent, 501, "no_parquet")

    served(suite, tmp_path, work)
