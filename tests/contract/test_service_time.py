"""What every service does about callers who take their time: with a body, and with an answer."""

import asyncio
import contextlib
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
KEPT_S = 0.2


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


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes. What was on its way to it by then resets the
    connection, which is as closed as can be."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65536):
            received += piece
    return received


REFUSED = b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"", b""),  # a connection that asks for nothing
        (b"", b"\r\n"),  # blank lines before a request that never comes
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\r\n"),  # or after one
        (REFUSED, b"x"),  # the rest of a body that nobody reads
    ],
)
async def test_a_connection_that_brings_no_request_is_closed_whatever_else_comes(
    first: bytes, more: bytes
) -> None:
    async with serving(make_app(), timeout_keep_alive=KEPT_S) as url:
        where = httpx.URL(url)
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(first)
        closed = asyncio.create_task(until_closed(reader))
        while not closed.done():  # pieces far less apart than a connection is kept
            writer.write(more)
            await asyncio.wait({closed}, timeout=KEPT_S / 8)
        writer.close()
    statuses = [line.split()[1] for line in closed.result().splitlines() if b"HTTP/1.1" in line]
    assert statuses == {b"": [], REFUSED: [b"404"]}.get(first, [b"200"])


async def test_a_request_may_take_longer_than_a_connection_is_kept_without_one() -> None:
    async with serving(make_app(), timeout_keep_alive=KEPT_S) as url:
        where = httpx.URL(url)
        reader, writer = await asyncio.open_connection(where.host, where.port)
        head = (
            b"POST /streams HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 2\r\n"
        )
        first, second = head + b"\r\n{}", head + b"connection: close\r\n\r\n{}"
        writer.write(first + second[:20])  # the second has begun when the first is answered
        answer = await reader.readuntil(b"the end")
        writer.write(second[20:])
        answer += await reader.read()
        writer.close()
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"the end")) == (2, 2)


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
