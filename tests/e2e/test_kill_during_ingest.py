"""kill -9 of retrieve in the middle of an ingest: nothing acknowledged is lost, nothing is half.

With real models, for the long run alone: tests/integration/test_faults_kill.py is its short form.
"""

import random
import threading
import time
from pathlib import Path

import httpx
import pytest

from shared.settings import ServiceName
from tests.suite import Suite, prepare_suite

SEED = 7
BATCH = 4
UPSTREAM: tuple[ServiceName, ...] = ("embed", "rerank")
WORDS = "harbour lantern orchard granite velvet compass meadow thunder"


def document(number: int) -> dict[str, str]:
    """A document of several chunks; every chunk names it."""
    sentences = [f"Entry {number} part {part} mentions {WORDS}." for part in range(24)]
    return {"id": f"d{number}", "title": f"Entry {number}", "text": " ".join(sentences)}


def ingest_until_killed(url: str, first: int, acknowledged: list[int]) -> None:
    """Send batches one after another until the service is gone."""
    number = first
    while True:
        batch = list(range(number, number + BATCH))
        body = {"documents": [document(one) for one in batch]}
        try:
            response = httpx.post(f"{url}/corpora/kill/documents", json=body, timeout=60)
        except httpx.TransportError:
            return
        assert response.status_code == 200, response.text
        acknowledged.extend(batch)
        number += BATCH


def check(url: str, acknowledged: list[int]) -> None:
    """Every acknowledged document is whole and found by both arms; none is half there."""
    listed: dict[str, int] = {}
    after = None
    while True:
        query = {"limit": "200", **({"after": after} if after else {})}
        page = httpx.get(f"{url}/corpora/kill/documents", params=query, timeout=60).json()
        listed |= {one["id"]: one["chunks"] for one in page["documents"]}
        after = page["next"]
        if after is None:
            break
    assert {f"d{number}" for number in acknowledged} <= set(listed)
    corpus = httpx.get(f"{url}/corpora/kill", timeout=60).json()
    assert corpus["chunks"] == sum(listed.values())
    for name in listed:
        number = int(name[1:])
        whole = httpx.get(f"{url}/corpora/kill/documents/{name}", timeout=60).json()
        assert whole["text"] == document(number)["text"]
    for number in acknowledged[-BATCH:]:
        for arm in ("bm25", "dense"):
            body = {
                "query": f"Entry {number} part 3 mentions {WORDS}",
                "corpora": ["kill"],
                "arms": [arm],
                "curate": False,
                "top_k": 1000,
                "candidates": 1000,
            }
            hits = httpx.post(f"{url}/retrieve", json=body, timeout=60).json()["hits"]
            assert f"d{number}" in {hit["document_id"] for hit in hits}, arm


@pytest.mark.parametrize("kills", [pytest.param(40, marks=pytest.mark.long)])
def test_acknowledged_documents_survive(suite: Suite, tmp_path: Path, kills: int) -> None:
    upstream = {f"REFDESK_{name.upper()}_URL": suite.url(name) for name in UPSTREAM}
    retrieve = prepare_suite(tmp_path, **upstream).services["retrieve"]
    url = retrieve.url
    chance = random.Random(SEED)
    acknowledged: list[int] = []
    try:
        retrieve.start()
        httpx.put(f"{url}/corpora/kill", json={}, timeout=60).raise_for_status()
        for turn in range(kills):
            first = turn * 10_000
            sender = threading.Thread(target=ingest_until_killed, args=(url, first, acknowledged))
            before = len(acknowledged)
            sender.start()
            while len(acknowledged) == before and sender.is_alive():
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 1.0))
            retrieve.kill()
            sender.join()
            retrieve.start()
            check(url, acknowledged)
        assert acknowledged
    finally:
        retrieve.stop()
