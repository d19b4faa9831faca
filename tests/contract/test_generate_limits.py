"""The service with more to do than it takes: whom it serves, whom it refuses, and with what."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.upstream import Wire, good, upstream
from tests.writers import WHEN, Serve, chat

PATHS = {"/v1/chat/completions": chat(WHEN), "/v1/responses": {"input": WHEN}}
PATH, BODY = next(iter(PATHS.items()))


class Held:
    """A model server that writes when it may. begun: counts the drafts that were asked for."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()

    async def __call__(self, wire: Wire) -> None:
        self.begun.release()
        await asyncio.wait_for(self.go_on.wait(), 30)
        await good(wire)


@asynccontextmanager
async def held(serve: Serve, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Held]]:
    """The service, whose tier reasoning is held up."""
    server = Held()
    async with (
        upstream(server) as models,
        serve(Desk(), reasoning_url=models.url, reasoning_model="m", **settings) as client,
    ):
        try:
            yield client, server
        finally:
            server.go_on.set()


def ask(
    client: httpx.AsyncClient, name: str | None, path: str = PATH
) -> "asyncio.Task[httpx.Response]":
    """A question of that key's, for the tier that is held up."""
    headers = bearer(name) if name else {}
    body = {**PATHS[path], "model": "reasoning"}
    return asyncio.create_task(client.post(path, json=body, headers=headers))


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_that_has_its_share_is_told_to_wait_and_another_key_is_served(
    serve: Serve, tmp_path: Path, path: str
) -> None:
    keys = keys_file(tmp_path, {"name": "ann"}, {"name": "bob"})
    async with held(serve, keys_file=keys, answers_at_once=2) as (client, server):
        first = ask(client, "ann")
        await server.begun.acquire()
        refused = await ask(client, "ann", path)
        other = ask(client, "bob", path)
        await server.begun.acquire()
        server.go_on.set()
        answers = [(await one).status_code for one in (first, other)]
        answers.append((await ask(client, "ann", path)).status_code)
        metrics = (await client.get("/metrics")).text
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("key_busy", "rate_limit_error")
    assert "1 requests of this API key" in error["message"]
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "true")
    assert answers == [200, 200, 200]
    assert 'refdesk_requests_shed_total{code="key_busy"}' in metrics
    assert '"ann"' not in metrics


async def test_a_single_key_and_everybody_without_keys_may_have_all_places(
    serve: Serve, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, {"name": "ann"})
    for name, settings in (("ann", {"keys_file": keys}), (None, {"answers_per_key": 1})):
        async with held(serve, answers_at_once=2, **settings) as (client, server):
            asked = [ask(client, name) for _ in range(2)]
            for _ in asked:
                await server.begun.acquire()
            server.go_on.set()
            assert [(await one).status_code for one in asked] == [200, 200]


async def test_the_share_of_a_key_can_be_set(serve: Serve, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, {"name": "ann"})
    settings = {"keys_file": keys, "answers_per_key": 1}
    async with held(serve, **settings) as (client, server):
        first = ask(client, "ann")
        await server.begun.acquire()
        refused = await ask(client, "ann")
        server.go_on.set()
        assert ((await first).status_code, refused.status_code) == (200, 429)


class Slow:
    """A request whose body is begun, and goes on when it may."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def begin(cls, url: httpx.URL, headers: dict[str, str]) -> "Slow":
        reader, writer = await asyncio.open_connection(url.host, url.port)
        fields = {
            "host": "localhost",
            "content-type": "application/json",
            "content-length": str(len(cls.body())),
            "expect": "100-continue",  # so that it is known when the service waits for the body
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode())
        return cls(reader, writer)

    @staticmethod
    def body() -> bytes:
        return json.dumps(BODY).encode()

    async def status(self) -> int:
        """The status of what is answered next; an interim 100 is one, too."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        return int(head.split()[1])

    async def finish(self) -> int:
        self.writer.write(self.body())
        return await self.status()


async def test_who_sends_slowly_keeps_nobody_from_being_answered(
    serve: Serve, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, {"name": "ann"}, {"name": "bob"}, {"name": "eve"})
    async with serve(
        Desk(), keys_file=keys, answers_at_once=2, answers_waiting=2, answers_per_key=3
    ) as client:
        slow = [await Slow.begin(client.base_url, bearer("eve")) for _ in range(3)]
        assert [await one.status() for one in slow] == [100] * 3
        one_more = await Slow.begin(client.base_url, bearer("eve"))
        assert await one_more.status() == 429
        for name in ("ann", "bob"):
            answer = await client.post(PATH, json=BODY, headers=bearer(name))
            assert answer.status_code == 200
        assert [await one.finish() for one in slow[:2]] == [200, 200]
        for one in (*slow, one_more):
            one.writer.close()


async def test_a_body_that_stops_coming_ends_with_an_error_of_our_shape(serve: Serve) -> None:
    async with serve(Desk(), body_pause_s=0.1, answers_at_once=1) as client:
        slow = await Slow.begin(client.base_url, {})
        assert [await slow.status(), await slow.status()] == [100, 408]
        answer = json.loads(await slow.reader.read())  # to the end: it is closed
        slow.writer.close()
        big = await client.post(
            PATH, content=pieces_of(b"x" * 2**20, 40), headers={"content-type": "application/json"}
        )
    assert answer["error"]["code"] == "body_too_slow"
    assert (big.status_code, big.json()["error"]["code"]) == (413, "body_too_large")


async def pieces_of(piece: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece


async def test_decisions_count_among_the_answers(serve: Serve) -> None:
    async with held(serve, answers_at_once=1, answers_waiting=0) as (client, server):
        first = ask(client, None)
        await server.begun.acquire()
        refused = await client.post("/v1/route", json=BODY)
        server.go_on.set()
        assert (await first).status_code == 200
        decided = await client.post("/v1/route", json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert decided.status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/v1/route"])
async def test_a_body_of_millions_of_values_is_refused(serve: Serve, path: str) -> None:
    body = json.dumps({**PATHS.get(path, BODY), "ignored": [[]] * 600_000})
    async with serve(Desk()) as client:
        refused = await client.post(
            path, content=body, headers={"content-type": "application/json"}
        )
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "too_many_values")
    assert error["type"] == "invalid_request_error"
