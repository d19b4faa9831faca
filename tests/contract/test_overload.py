"""Flooded with more than it can take, a service refuses the surplus, and that is all."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.settings import ServiceName
from tests.suite import prepare_suite

FLOOD = 30
# Long enough to keep the model busy for a while, and no two alike, so that no cache answers.
PAGES = [f"page {number}" + " of the books and journals" * 40 for number in range(FLOOD)]
WORDS = [f"word {number}" for number in range(900)]


@pytest.fixture(scope="module")
def urls(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """embed and rerank with room for four pages in their queues."""
    suite = prepare_suite(
        tmp_path_factory.mktemp("overload"),
        REFDESK_EMBED_QUEUE_TOKENS="800",
        REFDESK_RERANK_QUEUE_TOKENS="800",
    )
    names: tuple[ServiceName, ...] = ("embed", "rerank")
    try:
        for name in names:
            suite.services[name].start()
        yield {name: suite.services[name].url for name in names}
    finally:
        suite.stop()


def embedding(texts: list[str]) -> tuple[str, dict[str, Any]]:
    """A request to embed."""
    return "/v1/embeddings", {"input": texts}


def ranking(texts: list[str]) -> tuple[str, dict[str, Any]]:
    """A request to rerank."""
    return "/rerank", {"query": "where can I borrow a book?", "documents": texts}


async def answers(
    url: str, requests: list[tuple[str, dict[str, Any]]]
) -> list[tuple[int, dict[str, str], Any]]:
    """Status, headers and body of each request; all are sent at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as http:

        async def ask(path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
            async with http.post(path, json=body) as response:
                return response.status, dict(response.headers), await response.json()

        return await asyncio.gather(*(ask(*request) for request in requests))


@pytest.mark.parametrize(("service", "request_of"), [("embed", embedding), ("rerank", ranking)])
async def test_a_flood_is_answered_or_refused_with_the_way_out_and_then_all_is_well(
    urls: dict[str, str], service: str, request_of: Any
) -> None:
    flood = [request_of([text]) for text in PAGES]
    flooded = await answers(urls[service], flood)
    statuses = Counter(status for status, _, _ in flooded)
    assert set(statuses) == {200, 429}
    for status, headers, body in flooded:
        if status == 429:
            assert 1 <= int(headers["Retry-After"]) <= 30
            assert headers["x-should-retry"] == "true"
            assert body["error"]["code"] == "queue_full"
    [(status, _, _)] = await answers(urls[service], [request_of(["and one more"])])
    assert status == 200


@pytest.mark.parametrize(("service", "request_of"), [("embed", embedding), ("rerank", ranking)])
async def test_a_request_many_times_the_queue_is_taken_while_there_is_room(
    urls: dict[str, str], service: str, request_of: Any
) -> None:
    [(status, _, body)] = await answers(urls[service], [request_of(WORDS)])
    assert status == 200
    assert len(body["data" if service == "embed" else "results"]) == len(WORDS)
