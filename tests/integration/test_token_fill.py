"""Filled at ingest, the cache of token vectors is warm for the first question; no ingest waits."""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.retrieve.corpus.fill import TokenFill
from shared.client import ServiceClient
from shared.settings import Settings
from tests.suite import Suite, prepare_suite, serving

DOCUMENTS = [
    {"id": "leave", "title": "Leave", "text": "Everyone has thirty days of paid leave a year."},
    {"id": "canteen", "title": "Canteen", "text": "The canteen opens at noon and closes at two."},
    {"id": "bikes", "text": "Bicycles are parked in the yard behind the house."},
]


@pytest.fixture(scope="module")
def filling(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A rerank and a retrieve of their own; their embed is that of the suite."""
    own = prepare_suite(
        tmp_path_factory.mktemp("fill"),
        REFDESK_RERANK_FILL_AT_INGEST="true",
        REFDESK_EMBED_URL=suite.url("embed"),
    )
    try:
        own.services["rerank"].start()
        own.services["retrieve"].start()
        yield own
    finally:
        own.stop()


def metric(suite: Suite, pattern: str) -> float:
    """The value of a metric of rerank's, 0 while it has none."""
    text = httpx.get(f"{suite.services['rerank'].url}/metrics").text
    found = re.search(rf"^{pattern} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def kept_bytes(suite: Suite) -> float:
    return metric(suite, "refdesk_rerank_cache_bytes")


def looked_up_in_vain(suite: Suite) -> float:
    return metric(suite, r'refdesk_rerank_cache_lookups_total\{found="false"\}')


def load(suite: Suite, corpus: str) -> None:
    url = f"{suite.services['retrieve'].url}/corpora/{corpus}"
    assert httpx.put(url, timeout=60).status_code == 201
    answer = httpx.post(f"{url}/documents", json={"documents": DOCUMENTS}, timeout=60)
    assert answer.status_code == 200, answer.text


def ask(suite: Suite, corpus: str) -> dict[str, Any]:
    body = {"query": "How much paid leave do I have?", "corpora": [corpus], "explain": True}
    answer: dict[str, Any] = httpx.post(
        f"{suite.services['retrieve'].url}/retrieve", json=body, timeout=60
    ).json()
    return answer


def wait_until_filled(suite: Suite, before: float) -> None:
    """Three chunks are one request, and come into the cache together."""
    give_up = time.monotonic() + 60
    while kept_bytes(suite) == before:
        assert time.monotonic() < give_up, "rerank was never asked to read the chunks"
        time.sleep(0.05)


def test_the_first_question_finds_every_chunk_read(filling: Suite) -> None:
    before = kept_bytes(filling)
    load(filling, "filled")
    wait_until_filled(filling, before)
    missed = looked_up_in_vain(filling)
    answer = ask(filling, "filled")
    assert answer["degraded"] == []
    assert len(answer["hits"]) == len(DOCUMENTS)
    assert looked_up_in_vain(filling) == missed


def test_an_ingest_does_not_mind_that_rerank_is_down(filling: Suite) -> None:
    filling.services["rerank"].kill()
    log = filling.services["retrieve"].log
    told = log.read_text().count("token_fill_dropped")
    load(filling, "unfilled")
    give_up = time.monotonic() + 60
    while log.read_text().count("token_fill_dropped") == told:
        assert time.monotonic() < give_up, "what was dropped is not in the log"
        time.sleep(0.05)
    filling.services["rerank"].start()
    assert ask(filling, "unfilled")["degraded"] == []


def test_the_route_tells_how_many_were_new(suite: Suite) -> None:
    url = f"{suite.url('rerank')}/v1/token-vectors"
    texts = ["a text that nobody sent before", "a text that nobody sent before", "another one", ""]
    assert httpx.post(url, json={"documents": texts}).json() == {
        "model": "all-MiniLM-L6-v2",
        "new": 2,
    }
    assert httpx.post(url, json={"documents": texts}).json()["new"] == 0
    assert httpx.post(url, json={"documents": []}).status_code == 400


def test_what_waits_is_bounded_and_forgotten_at_the_end() -> None:
    async def main() -> list[int]:
        app = FastAPI()
        asked = asyncio.Event()
        sent: list[int] = []

        @app.post("/v1/token-vectors")
        async def hang(body: dict[str, list[str]]) -> None:
            sent.append(len(body["documents"]))
            asked.set()
            await asyncio.Event().wait()

        async with serving(app) as url:
            client = ServiceClient("rerank", url, settings=Settings())
            fill = TokenFill(client)
            fill.add(["a chunk"] * 20_000)
            fill.add(["a chunk"] * 20_000)
            await asked.wait()
            assert fill.waiting < 10_000
            await fill.close()
            assert fill.waiting == 0
            await client.close()
        return sent

    assert asyncio.run(main()) == [8]
