"""The whole desk over HTTP with its corpora in Qdrant, here qdrant-client's mode in memory."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.retrieve.app import build
from services.retrieve.stores.qdrant.points import Points
from shared.auth import hash_key
from shared.errors import StartupError
from shared.settings import Settings
from tests.qdrant import Sick
from tests.shelf import QUERY, TEXTS, desk
from tests.suite import Suite

Client = httpx.AsyncClient
NEW = {"id": "mars", "text": "Mars has two moons, Phobos and Deimos."}


def served(
    suite: Suite, folder: Path, work: Callable[[Client], Awaitable[None]], **more: Any
) -> None:
    """Run `work` on a desk whose corpus `shelf` is in Qdrant."""

    async def main() -> None:
        settings = {"embed": suite.url("embed"), "store": "qdrant", "qdrant_url": ":memory:"}
        async with desk(folder, **(settings | more)) as client:
            if "keys_file" in more:
                client.headers["authorization"] = "Bearer k-admin"
            made = await client.put("/corpora/shelf")
            assert made.status_code == 201, made.text
            await written(client, *(_document(key) for key in TEXTS))
            await work(client)

    asyncio.run(main())


def _document(key: str) -> dict[str, Any]:
    kind = "sky" if key in ("moon", "tides") else "earth"
    metadata = {"kind": kind, "letters": len(key), "date": f"2024-0{len(key) - 2}-01"}
    readers = ["cooks"] if key == "bread" else None
    return {"id": key, "text": TEXTS[key], "metadata": metadata, "readers": readers}


async def written(client: Client, *documents: dict[str, Any]) -> None:
    answer = await client.post("/corpora/shelf/documents", json={"documents": documents})
    assert answer.status_code == 200, answer.text


async def search(client: Client, query: str = QUERY, **more: Any) -> dict[str, Any]:
    body = {"query": query, "corpora": ["shelf"], "curate": False, **more}
    answer = await client.post("/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ids(client: Client, query: str = QUERY, **more: Any) -> list[str]:
    return [hit["document_id"] for hit in (await search(client, query, **more))["hits"]]


async def finished(client: Client, answer: httpx.Response) -> dict[str, Any]:
    """The result of the job that an answer names."""
    assert answer.status_code == 202, answer.text
    while True:
        job = (await client.get(f"/jobs/{answer.json()['id']}")).json()
        if job["state"] not in ("queued", "running"):
            assert job["state"] == "succeeded", job
            result: dict[str, Any] = job["result"]
            return result
        await asyncio.sleep(0.05)


def test_documents_come_are_found_and_go(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        info = (await client.get("/corpora/shelf")).json()
        assert (info["documents"], info["generation"]) == (5, 1)
        assert (await client.get("/ready")).status_code == 200
        assert (await ids(client))[0] == "moon"
        assert await ids(client, arms=["bm25"]) == ["moon", "tides"]
        assert (await ids(client, arms=["dense"]))[0] == "moon"
        explained = await search(client, explain=True, neighbors=1, recency={"half_life_days": 9})
        assert explained["hits"][0]["document_id"] == "moon"
        assert set(explained["hits"][0]["explain"]["arms"]) == {"bm25", "dense"}
        told = await client.post(
            "/retrieve/why-not",
            json={"query": QUERY, "corpora": ["shelf"], "document_id": "chess", "top_k": 1},
        )
        assert told.status_code == 200, told.text
        await written(client, {"id": "moon", "text": "Cheese is what it is made of."}, NEW)
        assert "moon" not in await ids(client, arms=["bm25"])
        listed = (await client.get("/corpora/shelf/documents")).json()["documents"]
        assert [one["id"] for one in listed] == sorted([*TEXTS, "mars"])
        assert (await client.get("/corpora/shelf/documents/mars")).json()["text"] == NEW["text"]
        assert (await client.delete("/corpora/shelf/documents/mars")).status_code < 300
        assert (await client.get("/corpora/shelf/documents/mars")).status_code == 404
        assert await ids(client, "Phobos", arms=["bm25"]) == []
        assert (await client.get("/corpora/shelf/stats")).json()["documents"] == 5
        assert (await client.delete("/corpora/shelf")).status_code == 204
        assert (await client.get("/corpora/shelf")).status_code == 404
        assert (await client.put("/corpora/shelf")).status_code == 201

    served(suite, tmp_path, work)


def test_filters_and_readers_hold_inside_the_search(suite: Suite, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    entries = [
        {"name": "all", "sha256": hash_key("k-admin"), "role": "admin"},
        {"name": "ann", "sha256": hash_key("k-ann"), "role": "reader", "groups": ["cooks"]},
        {"name": "bob", "sha256": hash_key("k-bob"), "role": "reader"},
    ]
    keys.write_text(json.dumps({"keys": entries}))

    async def work(client: Client) -> None:
        sky = {"type": "eq", "key": "kind", "value": "sky"}
        late = {"type": "gte", "key": "date", "value": "2024-03-01"}
        assert set(await ids(client, filter=sky)) == {"moon", "tides"}
        assert set(await ids(client, filter=late)) == {"tides", "bread", "chess"}
        both = {"type": "and", "filters": [sky, late]}
        assert await ids(client, filter=both) == ["tides"]
        for key, sees in (("k-admin", True), ("k-ann", True), ("k-bob", False)):
            client.headers["authorization"] = f"Bearer {key}"
            for arms in (["bm25"], ["dense"], ["bm25", "dense"]):
                assert ("bread" in await ids(client, "sourdough starter", arms=arms)) is sees
            answer = await client.get("/corpora/shelf/documents/bread")
            assert answer.status_code == (200 if sees else 404)

    served(suite, tmp_path, work, keys_file=keys)


def test_both_arms_go_in_one_round_trip_and_words_alone_where_embed_fails(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    real = Points.search

    def noted(self: Points, askings: Any) -> Any:
        asked.append([one.using for one in askings])
        return real(self, askings)

    monkeypatch.setattr(Points, "search", noted)

    async def work(client: Client) -> None:
        asked.clear()
        assert (await search(client))["degraded"] == []
        assert asked[0] == ["words", "dense"]
        asked.clear()
        assert await ids(client, arms=["bm25"]) == ["moon", "tides"]
        assert asked == [["words"]]
        suite.services["embed"].kill()
        try:
            asked.clear()
            found = await search(client)
            assert found["degraded"] == ["dense"]
            assert [hit["document_id"] for hit in found["hits"]] == ["moon", "tides"]
            assert asked[0] == ["words"]
        finally:
            await asyncio.to_thread(suite.services["embed"].start)

    served(suite, tmp_path, work)


def test_a_corpus_is_made_anew_moved_and_rolled_back_while_it_is_searched(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        going, found = True, []

        async def keep_searching() -> None:
            while going:
                found.append(await ids(client))
                await asyncio.sleep(0.02)

        searching = asyncio.create_task(keep_searching())
        made = await client.post("/corpora/shelf/reindex", json={"chunk_tokens": 64})
        assert (await finished(client, made))["generation"] == 2
        await written(client, NEW)
        moved = await client.post("/corpora/shelf/reindex", json={"engine": "local"})
        assert (await finished(client, moved))["generation"] == 3
        assert (await ids(client, "Phobos"))[0] == "mars"
        back = await client.post("/corpora/shelf/reindex", json={"engine": "qdrant"})
        assert (await finished(client, back))["generation"] > 3
        await written(client, {"id": "venus", "text": "Venus has no moon at all."})
        before = await client.post("/corpora/shelf/rollback")
        await finished(client, before)
        assert (await client.get("/corpora/shelf")).json()["documents"] == 7
        assert (await ids(client, "Venus"))[0] == "venus"
        going = False
        await searching
        assert all(one[0] == "moon" for one in found)

    served(suite, tmp_path, work)


def test_words_of_another_version_wait_for_a_reindex_and_the_rest_answers(
    suite: Suite, tmp_path: Path
) -> None:
    def analysed_otherwise() -> None:
        (file,) = tmp_path.rglob("catalogue.db")
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("UPDATE qdrant_generations SET analyser = 'words-1'")

    async def work(client: Client) -> None:
        analysed_otherwise()
        await client.post("/retrieve", json={"query": QUERY, "corpora": ["shelf"]})  # it is noted
        found = await search(client)
        assert (found["degraded"], found["hits"][0]["document_id"]) == (["bm25"], "moon")
        words = {"query": QUERY, "corpora": ["shelf"], "arms": ["bm25"]}
        refused = await client.post("/retrieve", json=words)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_arm")
        assert "`refdesk reindex`" in refused.json()["error"]["message"]
        assert "retry-after" not in refused.headers  # waiting alone makes none
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/corpora/shelf")).json()["rebuilding"] == {"bm25": 0.0}
        await written(client, NEW)
        result = await finished(client, await client.post("/corpora/shelf/reindex"))
        assert result["reused_vectors"] == result["copied_chunks"] == 6
        assert await ids(client, "Phobos", arms=["bm25"]) == ["mars"]
        assert (await search(client))["degraded"] == []

    served(suite, tmp_path, work)


def test_a_backup_comes_back_as_another_corpus_and_in_the_place_of_its_own(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        backup = (await client.get("/corpora/shelf/backup")).content
        await written(client, NEW)
        await client.patch("/corpora/shelf", json={"description": "of later"})
        made = await client.post("/corpora/again/restore", content=backup)
        assert made.status_code == 201, made.text
        assert (await client.get("/corpora/again")).json()["documents"] == 5
        assert (await ids(client, corpora=["again"]))[0] == "moon"
        replaced = await client.post("/corpora/shelf/restore?replace=true", content=backup)
        assert replaced.status_code == 200, replaced.text
        assert await ids(client, "Phobos", arms=["bm25"]) == []
        info = (await client.get("/corpora/shelf")).json()
        assert (info["generation"], info["description"]) == (2, "")

    served(suite, tmp_path, work)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({}, "REFDESK_QDRANT_URL"), ({"qdrant_url": "ftp://qdrant"}, "REFDESK_QDRANT_URL")],
)
async def test_a_qdrant_that_can_not_be_meant_keeps_the_desk_from_starting(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(StartupError, match=named):
        await build(Settings(data_dir=tmp_path, store="qdrant", **settings))


MEMORY = {"store": "qdrant", "qdrant_url": ":memory:"}


def beside_a_local_one(
    suite: Suite, folder: Path, work: Callable[[Client], Awaitable[None]], **more: Any
) -> None:
    """Run `work` on a desk with a local corpus `shelf`, and `lost`, which a process made that had
    its own Qdrant in memory."""

    async def make(client: Client) -> None:
        assert (await client.put("/corpora/shelf")).status_code == 201
        await written(client, *(_document(key) for key in TEXTS))

    async def lose(client: Client) -> None:
        assert (await client.put("/corpora/lost")).status_code == 201

    async def main() -> None:
        for settings, todo in (({}, make), (MEMORY, lose), (MEMORY | more, work)):
            async with desk(folder, embed=suite.url("embed"), **settings) as client:
                await todo(client)

    asyncio.run(main())


async def ready_without(client: Client, lost: str) -> None:
    """Look that all but one corpus is served, and that this one is named."""
    ready = await client.get("/ready")
    assert ready.status_code == 200, ready.text
    told = ready.json()
    assert (told["corpora"], told["damaged"], list(told["faults"])) == (1, 1, [lost])
    assert (await ids(client))[0] == "moon"


def test_what_was_in_the_memory_of_a_process_that_ended_keeps_no_other_from_being_served(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        await ready_without(client, "lost")
        read = "/corpora/lost/documents/moon"
        document = {"documents": [_document("moon")]}
        for answer in (
            await client.post("/retrieve", json={"query": QUERY, "corpora": ["lost"]}),
            await client.get(read),
            await client.post("/corpora/lost/documents", json=document),
            await client.put("/corpora/lost"),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (500, "corpus_damaged")
            for part in ("'lost'", "gone with the process", "refdesk corpora delete lost"):
                assert part in error["message"]
        assert (await client.delete("/corpora/lost")).status_code == 204
        assert (await client.put("/corpora/lost")).status_code == 201
        made = await client.post("/corpora/lost/documents", json=document)
        assert made.status_code == 200, made.text
        assert (await client.get(read)).status_code == 200

    beside_a_local_one(suite, tmp_path, work)


def test_a_collection_that_qdrant_misses_keeps_no_other_corpus_from_being_served(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        await ready_without(client, "lost")
        answer = await client.post("/retrieve", json={"query": QUERY, "corpora": ["lost"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "corpus_damaged")

    with closing(Sick()) as sick:
        sick.status, sick.body = 404, b'{"status": {"error": "Not found: Collection"}}'
        beside_a_local_one(suite, tmp_path, work, qdrant_url=sick.url)


@pytest.mark.parametrize("engine", ["local", "qdrant"])
def test_no_character_is_too_much_for_a_database(
    suite: Suite, tmp_path: Path, catalogue_url: str, engine: str
) -> None:
    bad = "x\0y"

    async def work(client: Client) -> None:
        refused = [
            await client.put("/corpora/other", json={"description": bad}),
            await client.patch("/corpora/shelf", json={"description": bad}),
            await client.patch("/corpora/shelf", json={"readers": [bad]}),
            *[
                await client.post("/corpora/shelf/documents", json={"documents": [one]})
                for one in (
                    {"id": bad, "text": "text"},
                    {"id": "bad", "text": "text", "url": f"http://{bad}"},
                    {"id": "bad", "text": "text", "readers": [bad]},
                )
            ],
        ]
        assert [one.status_code for one in refused] == [422] * len(refused)
        text = "<h1>x&#0;y</h1><p>Phobos &#x00;</p>"
        metadata = {bad: bad, "list": [bad, "z"]}
        odd = {"id": "odd", "title": bad, "text": text, "metadata": metadata, "format": "html"}
        await written(client, odd)
        found = (await client.get("/corpora/shelf/documents/odd")).json()
        assert (found["title"], found["metadata"]) == ("xy", metadata)
        assert "\0" not in found["text"]
        condition = {"type": "eq", "key": bad, "value": bad}
        assert await ids(client, "Phobos", filter=condition) == ["odd"]
        path = "/corpora/shelf/documents"
        assert (await client.get(f"{path}/x%00y")).status_code == 404
        assert (await client.delete(f"{path}/x%00y")).status_code == 404
        told = await client.post(f"{path}/delete", json={"ids": [bad]})
        assert told.json() == {"deleted": [], "missing": [bad]}
        for query, listed in (("prefix=o%00", []), ("after=moon%00z", ["odd", "tides"])):
            page = (await client.get(f"{path}?{query}")).json()["documents"]
            assert [one["id"] for one in page] == listed
        body = {"query": bad, "corpora": ["shelf"], "curate": False, "document_id": bad}
        assert (await client.post("/retrieve/why-not", json=body)).status_code == 404

    served(suite, tmp_path, work, store=engine, catalogue_url=catalogue_url)
