"""What every service does about callers who take their time: with a body, and with an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from shared.context import current
from shared.limits import Load
from shared.service import create_service
from shared.settings import Settings
from tests.suite import serving

PAUSE_S = 0.1


def make_app() -> FastAPI:
    async def probe() -> dict[str, Any]:
        return {}

    load = Load(frozenset({"/limited", "/waits"}), at_once=1, waiting=0, longest_s=5)
    app = create_service("generate", Settings(body_pause_s=PAUSE_S), probe=probe, load=load)

    @app.post("/limited")
    @app.post("/free")
    async def remaining(_: Request) -> float:
        return current().deadline.remaining_ms()

    @app.post("/waits")
    async def waits(body: dict[str, str]) -> dict[str, str]:
        return body

    @app.post("/streams")
    async def streams(_: dict[str, str]) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            await asyncio.sleep(3 * PAUSE_S)
            yield "the end"

        return StreamingResponse(pieces())

    return app


async def test_a_body_that_stops_coming_is_refused_and_gives_its_place_back() -> None:
    async with serving(make_app()) as url, httpx.AsyncClient(base_url=url) as client:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /waits HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b'content-length: 500\r\n\r\n{"a'
        )
        answer = await asyncio.wait_for(reader.read(), 10)  # to the end: it is closed
        writer.close()
        assert (await client.post("/waits", json={"a": "b"})).json() == {"a": "b"}
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "body_too_slow"


async def test_an_answer_may_take_longer_than_a_pause_within_a_body() -> None:
    async with serving(make_app()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/streams", json={})).text == "the end"


@pytest.mark.parametrize("headers", [{}, {"x-deadline-ms": "86400000"}])
async def test_what_holds_a_place_ends_soon_whatever_its_caller_allows(
    headers: dict[str, str],
) -> None:
    async with serving(make_app()) as url, httpx.AsyncClient(base_url=url) as client:
        limited = (await client.post("/limited", headers=headers)).json()
        free = (await client.post("/free", headers=headers)).json()
        shorter = (await client.post("/limited", headers={"x-deadline-ms": "2000"})).json()
    assert 2000 < limited <= 5000 < free
    assert 0 < shorter <= 2000
