"""The desk while the word index of a corpus is built anew: it answers by vectors, and says so."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from services.retrieve.stores.local.database import Database
from tests.shelf import QUERY, TEXTS, desk, fill_shelf
from tests.suite import Suite


async def test_searches_go_on_without_the_words_and_name_them(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = suite.url("embed")
    await asyncio.to_thread(fill_shelf, tmp_path, embed)
    shutil.rmtree(tmp_path / "corpora" / "shelf" / "g1" / "lexical")
    go_on, read = threading.Event(), Database.bodies_after

    def waiting(database: Database, key: int, limit: int) -> list[tuple[int, str]]:
        go_on.wait(20)
        return read(database, key, limit)

    monkeypatch.setattr("services.retrieve.stores.local.following.AT_ONCE", 1)
    monkeypatch.setattr(Database, "bodies_after", waiting)
    ask = {"query": QUERY, "corpora": ["shelf"], "curate": False}
    async with desk(tmp_path, embed=embed) as client:
        found = (await client.post("/retrieve", json=ask)).json()
        assert found["hits"][0]["document_id"] == "moon"
        assert found["degraded"] == ["bm25"]
        both = {**ask, "corpora": ["shelf", "secret"]}
        assert (await client.post("/retrieve", json=both)).json()["degraded"] == ["bm25"]
        refused = await client.post("/retrieve", json={**ask, "arms": ["bm25"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_arm")
        assert "being built anew" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "5"
        exact = await client.post("/retrieve", json={**ask, "arms": ["bm25-exact"]})
        assert exact.json()["degraded"] == []
        assert exact.json()["hits"][0]["document_id"] == "moon"
        assert (await client.get("/corpora/shelf")).json()["rebuilding"] == {"bm25": 0.0}
        assert (await client.get("/corpora/secret")).json()["rebuilding"] == {}
        ready = await client.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["rebuilding"] == {"shelf": {"bm25": 0.0}}
        body = {"documents": [{"id": "otter", "text": "Otters hold hands while they sleep."}]}
        assert (await client.post("/corpora/shelf/documents", json=body)).status_code == 200
        go_on.set()
        async with asyncio.timeout(30):
            # A service has no event for it.
            while (await client.get("/corpora/shelf")).json()["rebuilding"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        words = {**ask, "query": "otters", "arms": ["bm25"]}
        found = (await client.post("/retrieve", json=words)).json()
        assert [hit["document_id"] for hit in found["hits"]] == ["otter"]
        assert found["degraded"] == []
        told = (await client.get("/corpora/shelf")).json()
        assert told["documents"] == len(TEXTS) + 1
