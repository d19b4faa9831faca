"""What a service holds of a body, how many values one may have, and who learns of a lost caller."""

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from shared.limits import Load
from shared.service import create_service
from shared.settings import Settings
from tests.guarded import bearer, keys_file
from tests.suite import serving

SIZE = 8 * 2**20
MOST_VALUES = 100


class Held:
    """An app whose requests take until they may end. lost: those whose caller has left."""

    def __init__(self, **settings: Any) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        self.lost = asyncio.Semaphore(0)
        self.app = self._app(Settings(**settings))

    def _app(self, settings: Settings) -> FastAPI:
        async def probe() -> dict[str, Any]:
            return {}

        load = Load(frozenset({"/waits"}), at_once=2, waiting=0, longest_s=60)
        app = create_service("generate", settings, probe=probe, load=load, most_values=MOST_VALUES)

        @app.post("/waits")
        async def waits(_: dict[str, Any]) -> None:
            self.begun.release()
            await self.go_on.wait()

        @app.post("/watches")
        async def watches(_: dict[str, Any], request: Request) -> None:
            self.begun.release()
            assert (await request.receive())["type"] == "http.disconnect"
            self.lost.release()

        return app


def post(path: str, body: bytes) -> bytes:
    """A whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_a_body_is_held_once_while_it_is_worked_on() -> None:
    held = Held()
    sent = post("/waits", json.dumps({"text": "x" * SIZE}).encode())
    async with serving(held.app) as url:
        where = httpx.URL(url)
        _, writer = await asyncio.open_connection(where.host, where.port)
        tracemalloc.start()
        try:
            writer.write(sent)
            await asyncio.wait_for(held.begun.acquire(), 30)
            now, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        held.go_on.set()
        writer.close()
    assert SIZE < now < 1.5 * SIZE


@pytest.mark.parametrize("value", ["[]", "{}", "1"])
async def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(value: str) -> None:
    held = Held()
    held.go_on.set()
    json_type = {"content-type": "application/json"}
    few, many = (
        f'{{"ignored": [{",".join([value] * count)}]}}' for count in (MOST_VALUES // 2 - 2, 101)
    )
    async with serving(held.app) as url, httpx.AsyncClient(base_url=url) as client:
        taken = await client.post("/waits", content=few, headers=json_type)
        refused = await client.post("/waits", content=many, headers=json_type)
        unparsed = await client.post("/waits", content=many[:-1] + "!", headers=json_type)
    assert (taken.status_code, refused.status_code) == (200, 400)
    error = refused.json()["error"]
    assert error["code"] == unparsed.json()["error"]["code"] == "too_many_values"
    assert f"over {MOST_VALUES} commas" in error["message"]


async def test_a_lost_caller_is_noticed_also_where_another_request_came_after_the_first() -> None:
    held = Held()
    more = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with serving(held.app) as url:
        where = httpx.URL(url)
        for pipelined in (b"", more, more * 3, post("/watches", b"{}")):
            _, writer = await asyncio.open_connection(where.host, where.port)
            writer.write(post("/watches", b"{}") + pipelined)
            await asyncio.wait_for(held.begun.acquire(), 30)
            writer.close()
            await asyncio.wait_for(held.lost.acquire(), 30)


@pytest.mark.parametrize(
    ("second", "status"),
    [
        ({"name": "bob"}, 429),
        ({"name": "bob", "services": ["retrieve"]}, 200),  # may not use this one
        ({"name": "suite"}, 200),  # the service's own key
    ],
)
async def test_a_key_shares_with_those_alone_that_are_of_callers_of_the_service(
    tmp_path: Path, second: dict[str, Any], status: int
) -> None:
    keys = keys_file(tmp_path, {"name": "ann"}, second)
    held = Held(keys_file=keys, service_key="suite-key")
    async with (
        serving(held.app) as url,
        httpx.AsyncClient(base_url=url, headers=bearer("ann")) as client,
    ):
        first = asyncio.create_task(client.post("/waits", json={}))
        await asyncio.wait_for(held.begun.acquire(), 30)
        asked = asyncio.create_task(client.post("/waits", json={}))
        if status == 200:
            await asyncio.wait_for(held.begun.acquire(), 30)
            held.go_on.set()
        assert (await asked).status_code == status
        held.go_on.set()
        assert (await first).status_code == 200
