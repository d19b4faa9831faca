"""The Python client, sync and async, against a desk that misbehaves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from shared.desk import (
    AsyncClient,
    BusyError,
    Client,
    DeskError,
    OutOfTimeError,
    ServerError,
    UnreachableError,
)
from tests.suite import free_port, serving


class Peer:
    """A server whose answers are a list, used in turn; it keeps the headers of the requests."""

    def __init__(self, *answers: Response | Callable[..., Any]) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        self.seen.append(dict(request.headers))
        await self.answers[min(len(self.seen), len(self.answers)) - 1](scope, receive, send)


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def refusal(status: int, code: str, **headers: str) -> JSONResponse:
    error = {"message": "no", "type": "x", "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


EMPTY = JSONResponse({"corpora": []})


async def both(url: str, ask: Callable[[Any], Any], **options: Any) -> list[Any]:
    """What each client makes of a call: a result or an error."""

    def sync() -> Any:
        with Client(url, **options) as client:
            return ask(client)

    async def in_loop() -> Any:
        async with AsyncClient(url, **options) as client:
            return await ask(client)

    return await asyncio.gather(asyncio.to_thread(sync), in_loop(), return_exceptions=True)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_desk_is_asked_again_when_it_says_so(status: int) -> None:
    for kind in (Client, AsyncClient):
        peer = Peer(refusal(status, "busy", **{"Retry-After": "0"}), EMPTY)
        async with serving(peer) as url:
            if kind is Client:
                assert await asyncio.to_thread(Client(url).corpora) == []
            else:
                assert await AsyncClient(url).corpora() == []
        assert len(peer.seen) == 2


async def test_a_desk_that_stays_busy_is_given_up_on() -> None:
    peer = Peer(refusal(503, "stopping"))
    async with serving(peer) as url:
        errors = await both(url, lambda client: client.corpora(), retries=1)
    assert [type(error) for error in errors] == [BusyError, BusyError]
    assert errors[0].code == "stopping"
    assert len(peer.seen) == 4


async def test_a_desk_that_wants_no_second_try_or_a_long_wait_is_left_alone() -> None:
    for answer in (
        refusal(503, "upstream_unavailable", **{"x-should-retry": "false"}),
        refusal(429, "queue_full", **{"Retry-After": "3600"}),
        refusal(500, "internal_error"),
    ):
        peer = Peer(answer)
        async with serving(peer) as url:
            errors = await both(url, lambda client: client.corpora())
        assert all(isinstance(error, BusyError | ServerError) for error in errors)
        assert len(peer.seen) == 2


async def test_the_desk_is_told_how_long_it_has_and_who_asks() -> None:
    peer = Peer(EMPTY)
    async with serving(peer) as url:
        await both(url, lambda client: client.corpora(), timeout_s=7, api_key="k-1")
    for headers in peer.seen:
        assert 6000 < int(headers["x-deadline-ms"]) <= 7000
        assert headers["authorization"] == "Bearer k-1"


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("<html>hello</html>"),
        PlainTextResponse("gone", 502),
        JSONResponse({"corpora": "many"}),
        JSONResponse({"error": "no"}, 400),
        refusal(404, "unknown_path"),
    ],
)
async def test_what_is_no_desk_is_named_as_such(answer: Response) -> None:
    async with serving(Peer(answer)) as url:
        errors = await both(url, lambda client: client.corpora())
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert "is no desk" in str(error)


async def test_a_desk_that_hangs_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.desk.exchange._GRACE_S", 0.0)
    peer = Peer(hang)
    async with serving(peer) as url:
        errors = await both(url, lambda client: client.corpora(), timeout_s=0.3)
    assert [type(error) for error in errors] == [OutOfTimeError, OutOfTimeError]
    assert len(peer.seen) == 2


async def test_a_desk_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    errors = await both(url, lambda client: client.corpora(), retries=1)
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert url in str(error)


async def test_a_broken_connection_is_tried_again_but_not_for_a_delete() -> None:
    tries = []

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(await reader.readline())
        writer.transport.abort()

    port = free_port()
    async with await asyncio.start_server(cut, "127.0.0.1", port):
        url = f"http://127.0.0.1:{port}"
        errors = await both(url, lambda client: client.corpora(), retries=1)
        assert [type(error) for error in errors] == [UnreachableError, UnreachableError]
        assert len(tries) == 4
        errors = await both(url, lambda client: client.delete_corpus("x"), retries=1)
        assert [type(error) for error in errors] == [UnreachableError, UnreachableError]
        assert len(tries) == 6


async def test_an_address_that_can_not_be_called_is_a_desk_error() -> None:
    for url in (f"http://{'x' * 70}.example", "http://[::1", "http://a\x00b"):
        for error in await both(url, lambda client: client.corpora(), retries=0):
            assert isinstance(error, DeskError), error
