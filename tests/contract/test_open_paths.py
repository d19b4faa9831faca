"""What anybody is told who has no key: that a service is well, and nothing of what is behind it."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.envelope import OPEN_PATHS
from shared.settings import ServiceName
from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.shelf import QUERY, desk
from tests.suite import Suite
from tests.upstream import answers, good, upstream
from tests.writers import WHEN, Serve, chat

HOLDER = "the-holder-of-the-key"
# What a label may not be, as its values would be addresses, files, or names of others' things.
INSIDE = {"server", "url", "host", "endpoint", "path", "file", "corpus", "key", "principal"}


async def told_to_anybody(client: httpx.AsyncClient) -> dict[str, str]:
    """What each of the open paths says without a key; all of them answer."""
    told = {path: await client.get(path) for path in OPEN_PATHS}
    assert {one.status_code for one in told.values()} == {200}
    return {path: one.text for path, one in told.items()}


def labels(metrics: str) -> set[str]:
    """The names of all labels."""
    return set(re.findall(r'[{,]([a-z_]+)="', metrics))


async def test_generate_tells_nobody_of_its_servers_corpora_keys_and_files(
    serve: Serve, tmp_path: Path
) -> None:
    corpus = "corpus-of-somebody"
    keys = keys_file(tmp_path, {"name": HOLDER})
    async with upstream(good) as well, upstream(answers(500)) as down:
        servers: dict[str, Any] = {"utility_url": well.url, "utility_model": "well"}
        servers |= {"reasoning_url": down.url, "reasoning_model": "down"}
        async with serve(Desk([corpus]), keys_file=keys, data_dir=tmp_path, **servers) as client:
            for model in ("utility", *["reasoning"] * 6):
                body = chat(WHEN, model=model)
                answer = await client.post(
                    "/v1/chat/completions", json=body, headers=bearer(HOLDER)
                )
                assert answer.status_code == 200
            told = await told_to_anybody(client)
            hidden = [well.url, down.url, HOLDER, corpus, str(tmp_path), str(client.base_url)]
    for path, text in told.items():
        for one in hidden:
            assert one.removeprefix("http://").rstrip("/") not in text, path
    metrics = told["/metrics"]
    assert 'refdesk_generate_breakers_open{model="down"} 1.0' in metrics
    assert 'refdesk_generate_answers_total{answered="true",tier="utility"}' in metrics
    assert 'refdesk_generate_degraded_total{part="writer"}' in metrics
    assert labels(metrics).isdisjoint(INSIDE)


async def test_retrieve_tells_nobody_of_its_corpora_keys_and_files(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, {"name": HOLDER})
    async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as client:
        question = {"query": QUERY, "corpora": ["shelf"], "curate": False}
        answer = await client.post("/retrieve", json=question, headers=bearer(HOLDER))
        assert answer.status_code == 200
        told = await told_to_anybody(client)
    hidden = [suite.url("embed"), HOLDER, str(shelf), str(tmp_path), '"secret"', '"shelf"']
    for path, text in told.items():
        for one in hidden:
            assert one.removeprefix("http://") not in text, path
    assert labels(told["/metrics"]).isdisjoint(INSIDE)


@pytest.mark.parametrize("name", ["embed", "rerank"])
def test_a_model_tells_nobody_of_addresses_and_files(suite: Suite, name: ServiceName) -> None:
    url = suite.url(name)
    for path in OPEN_PATHS:
        text = httpx.get(url + path).text
        assert str(suite.data_dir) not in text
        assert "127.0.0.1" not in text
        assert labels(text).isdisjoint(INSIDE)
