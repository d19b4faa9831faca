"""The client between services, against a real server that misbehaves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from shared.auth import LOCAL
from shared.client import ServiceClient
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from shared.settings import Settings
from tests.suite import free_port, serving


class Peer:
    """A server whose answers are a list, used in turn; it keeps the requests."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        self.headers.append(dict(request.headers))
        await self.answers[min(len(self.headers), len(self.answers)) - 1](scope, receive, send)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., ServiceClient]]:
    clients: list[ServiceClient] = []

    def make(url: str, **options: Any) -> ServiceClient:
        clients.append(ServiceClient("embed", url, settings=Settings(), **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


OK = JSONResponse({"fine": True})


async def test_a_busy_peer_is_tried_once_more(connect: Callable[..., ServiceClient]) -> None:
    peer = Peer(JSONResponse({}, 503), OK)
    async with serving(peer) as url:
        assert await connect(url).post("/x", {}) == {"fine": True}
    assert len(peer.headers) == 2


async def test_a_peer_that_stays_busy_is_given_up_on(connect: Callable[..., ServiceClient]) -> None:
    peer = Peer(JSONResponse({}, 429, {"Retry-After": "0"}))
    async with serving(peer) as url:
        with pytest.raises(ApiError) as caught:
            await connect(url).post("/x", {})
    assert caught.value.status == 429
    assert len(peer.headers) == 2


async def test_what_must_not_happen_twice_is_not_repeated(
    connect: Callable[..., ServiceClient],
) -> None:
    peer = Peer(JSONResponse({}, 503), OK)
    async with serving(peer) as url:
        with pytest.raises(ApiError):
            await connect(url).post("/x", {}, retry=False)
    assert len(peer.headers) == 1


async def test_a_peer_error_keeps_its_words_and_a_500_becomes_a_502(
    connect: Callable[..., ServiceClient],
) -> None:
    told = {"error": {"message": "no such model", "type": "t", "param": "model", "code": "c"}}
    async with serving(Peer(JSONResponse(told, 404), PlainTextResponse("oops", 500))) as url:
        client = connect(url)
        with pytest.raises(ApiError) as caught:
            await client.post("/x", {})
        assert (caught.value.status, caught.value.message) == (404, "no such model")
        with pytest.raises(ApiError) as caught:
            await client.post("/x", {})
        assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


async def test_an_answer_that_is_not_json_is_a_502(connect: Callable[..., ServiceClient]) -> None:
    async with serving(Peer(PlainTextResponse("<html>"))) as url:
        with pytest.raises(ApiError) as caught:
            await connect(url).post("/x", {})
    assert caught.value.status == 502


async def test_a_redirect_is_a_502(connect: Callable[..., ServiceClient]) -> None:
    async with serving(Peer(Response(b"moved", 302, {"Location": "/y"}))) as url:
        for call in (connect(url).get, connect(url).get_bytes):
            with pytest.raises(ApiError) as caught:
                await call("/x")
            assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


async def test_a_host_that_takes_no_connection_is_unreachable_while_there_is_time(
    connect: Callable[..., ServiceClient],
) -> None:
    enter(RequestContext("id", Deadline.after_ms(60_000), LOCAL))
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # a full backlog: the kernel drops the next one's packets
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(ApiError) as caught:
            await connect(f"http://127.0.0.1:{full.getsockname()[1]}").post("/x", {}, retry=False)
    assert (caught.value.status, caught.value.code) == (503, "unreachable")


async def test_nobody_there_is_a_503_that_says_what_to_start(
    connect: Callable[..., ServiceClient],
) -> None:
    with pytest.raises(ApiError, match="refdesk up --only embed") as caught:
        await connect(f"http://127.0.0.1:{free_port()}").post("/x", {})
    assert caught.value.status == 503


async def test_identity_and_the_rest_of_the_deadline_travel_along(
    connect: Callable[..., ServiceClient],
) -> None:
    peer = Peer(OK)
    enter(RequestContext("id-7", Deadline.after_ms(5000), LOCAL, "Bearer mine"))
    async with serving(peer) as url:
        await connect(url).get("/x")
    assert peer.headers[0]["x-request-id"] == "id-7"
    assert 0 < int(peer.headers[0]["x-deadline-ms"]) <= 5000
    assert peer.headers[0]["authorization"] == "Bearer mine"


async def test_a_foreign_server_never_gets_the_callers_key(
    connect: Callable[..., ServiceClient],
) -> None:
    peer = Peer(OK)
    enter(RequestContext("id-7", Deadline.after_ms(5000), LOCAL, "Bearer mine"))
    async with serving(peer) as url:
        await connect(url, external=True, key=SecretStr("theirs")).get("/x")
        await connect(url, external=True).get("/x")
    assert peer.headers[0]["authorization"] == "Bearer theirs"
    assert "authorization" not in peer.headers[1]


async def test_a_slow_peer_is_left_when_the_time_is_up(
    connect: Callable[..., ServiceClient],
) -> None:
    enter(RequestContext("id", Deadline.after_ms(100), LOCAL))
    async with asyncio.timeout(10):
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ApiError) as caught:
                await connect(f"http://127.0.0.1:{port}").get("/x")
    assert caught.value.status == 504
