"""kill -9 of retrieve in the middle of a loading job: it goes on by itself and ends complete."""

import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.settings import ServiceName
from tests.suite import Suite, prepare_suite

SEED = 11
UPSTREAM: tuple[ServiceName, ...] = ("embed", "rerank")


def text(number: int, turn: int) -> str:
    """Of a document; every sentence names it."""
    return " ".join(
        f"Entry {number} of turn {turn} says {part} about granite." for part in range(12)
    )


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.long)])
def test_a_job_survives_the_death_of_its_process(suite: Suite, tmp_path: Path, kills: int) -> None:
    upstream = {f"REFDESK_{name.upper()}_URL": suite.url(name) for name in UPSTREAM}
    retrieve = prepare_suite(tmp_path, **upstream).services["retrieve"]
    chance = random.Random(SEED)
    killed = 0
    turn = 0
    try:
        retrieve.start()
        with httpx.Client(base_url=retrieve.url, timeout=60) as client:
            client.put("/corpora/load").raise_for_status()
            while killed < kills:
                turn += 1
                killed += one_load(client, retrieve, turn, chance, min(2, kills))
                check(client, turn)
    finally:
        retrieve.stop()


def one_load(
    client: httpx.Client, retrieve: Any, turn: int, chance: random.Random, kills: int
) -> int:
    """Load 80 documents and kill the service now and then until they are; how often it was."""
    lines = [json.dumps({"id": f"d{n}", "text": text(n, turn)}) for n in range(80)]
    answer = client.post(
        "/corpora/load/ingest",
        content="\n".join(lines),
        headers={"content-type": "application/x-ndjson", "idempotency-key": f"turn {turn}"},
    )
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    killed = 0
    give_up = time.monotonic() + 240
    next_kill = time.monotonic() + chance.uniform(0.1, 0.8)
    while time.monotonic() < give_up:
        job = client.get(f"/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            assert job["state"] == "succeeded", job
            assert job["verdicts"]["failed"] == 0
            return killed
        if killed < kills and time.monotonic() > next_kill:
            retrieve.kill()
            killed += 1
            retrieve.start()
            next_kill = time.monotonic() + chance.uniform(0.1, 0.8)
        time.sleep(0.02)
    raise AssertionError(f"the job does not end: {job}")


def check(client: httpx.Client, turn: int) -> None:
    """Every document is there whole, once, as it was sent last."""
    page = client.get("/corpora/load/documents", params={"limit": 1000}).json()
    chunks = {one["id"]: one["chunks"] for one in page["documents"]}
    assert set(chunks) == {f"d{n}" for n in range(80)}
    assert client.get("/corpora/load").json()["chunks"] == sum(chunks.values())
    for number in range(0, 80, 7):
        assert client.get(f"/corpora/load/documents/d{number}").json()["text"] == text(number, turn)
    body = {
        "query": f"Entry 77 of turn {turn} says 3 about granite",
        "corpora": ["load"],
        "arms": ["bm25"],
        "curate": False,
        "top_k": 20,
    }
    hits = client.post("/retrieve", json=body).json()["hits"]
    assert "d77" in {hit["document_id"] for hit in hits}
    assert all(f"turn {turn} " in hit["text"] for hit in hits)
