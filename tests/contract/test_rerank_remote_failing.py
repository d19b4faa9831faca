"""The remote backend when the server behind it fails, answers rubbish, hangs or is not there."""

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from services.rerank.models.base import Scored
from shared import upstream
from shared.auth import LOCAL
from shared.client import Patience
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from tests.rerank_server import KEY, OpenRemote, Server
from tests.suite import free_port, serving


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the pauses between tries: how long they are is not what is tested."""

    def patience(tries: int, pause_s: float, *more: Any) -> Patience:
        return Patience(tries, pause_s / 10, *more)

    monkeypatch.setattr(upstream, "Patience", patience)


async def asked(remote: OpenRemote, server: Server, *, deadline_ms: float = 60_000) -> Scored:
    enter(RequestContext("r", Deadline.after_ms(deadline_ms), LOCAL))
    async with serving(server) as url:
        return await remote(url).score("q", ["a", "b"])


@pytest.mark.parametrize(
    "failure",
    [
        JSONResponse({}, 429, {"Retry-After": "0"}),
        JSONResponse({}, 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        JSONResponse({}, 503),
        PlainTextResponse("oops", 500),
        Response(b'{"results": [', headers={"content-length": "400"}),
    ],
    ids=["429", "429 with a date", "503", "500", "closes in the middle of the body"],
)
async def test_what_may_pass_is_tried_again(remote: OpenRemote, failure: Response) -> None:
    server = Server(failure)
    assert (await asked(remote, server)).scores == [0.001, 0.001]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (429, 503, "upstream_unavailable"),
        (503, 503, "upstream_unavailable"),
        (500, 502, "bad_upstream"),
    ],
)
async def test_what_does_not_pass_is_given_up_on(
    remote: OpenRemote, status: int, ours: int, code: str
) -> None:
    server = Server(*(JSONResponse({}, status, {"Retry-After": "0"}) for _ in range(9)))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server)
    assert (caught.value.status, caught.value.code) == (ours, code)
    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
async def test_a_refusal_is_final_and_keeps_the_key_to_itself(
    remote: OpenRemote, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = Server(JSONResponse({"message": f"no such key: {KEY}"}, status))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")
    assert KEY not in caught.value.message + caplog.text
    assert len(server.seen) == 1


def results(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}


@pytest.mark.parametrize(
    "told",
    [
        results((0, 0.5)),
        results((0, 0.5), (0, 0.6)),
        results((0, 0.5), (1, 0.6), (1, 0.6)),
        results((0, 0.5), (2, 0.6)),
        results((0, 0.5), (-1, 0.6)),
        results((0, 0.5), (1, None)),
        results((0, 0.5), (1, "0.6")),
        results((0, 0.5), (1, True)),
        results((0, 0.5), (1, 7.5)),
        {"results": None},
        [],
        {"data": []},
        None,
    ],
)
async def test_an_answer_that_is_not_a_score_for_every_document_is_refused(
    remote: OpenRemote, told: Any
) -> None:
    server = Server(JSONResponse(told))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")
    assert len(server.seen) == 1


@pytest.mark.parametrize("text", ["<html>", json.dumps(results((0, math.nan), (1, 1))), "", "{"])
async def test_an_answer_that_is_no_json_is_refused(remote: OpenRemote, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        await asked(remote, Server(PlainTextResponse(text)))
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


def never(server: Server) -> Response:
    async def nothing() -> AsyncIterator[bytes]:
        try:
            yield b"{"
            await asyncio.sleep(3600)
        finally:
            server.left.set()

    return StreamingResponse(nothing(), media_type="application/json")


async def test_a_server_that_hangs_costs_no_more_than_the_deadline(remote: OpenRemote) -> None:
    server = Server()
    server.answers = [never(server)]
    with pytest.raises(ApiError) as caught:
        await asked(remote, server, deadline_ms=300)
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")


async def test_a_pause_that_the_deadline_does_not_leave_is_not_waited_for(
    remote: OpenRemote,
) -> None:
    server = Server(JSONResponse({}, 429, {"Retry-After": "20"}))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server, deadline_ms=5000)
    assert caught.value.code == "upstream_unavailable"
    assert caught.value.headers == {"Retry-After": "20", "x-should-retry": "false"}
    assert len(server.seen) == 1


async def test_a_caller_who_leaves_ends_the_call(remote: OpenRemote) -> None:
    server = Server()
    server.answers = [never(server)]
    async with serving(server) as url:
        asking = asyncio.create_task(remote(url).score("q", ["a", "b"]))
        while not server.seen:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.left.wait(), 10)


async def test_requests_are_refused_while_too_many_texts_wait(remote: OpenRemote) -> None:
    server = Server()
    server.answers = [never(server)]
    async with serving(server) as url:
        model = remote(url, rerank_queue_tokens=2)
        asking = asyncio.create_task(model.score("q", ["a", "b"]))
        while not server.seen:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as caught:
            await model.score("q", ["c"])
        asking.cancel()
        await asyncio.wait([asking])
        assert len((await model.score("q", ["c"])).scores) == 1
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers["x-should-retry"] == "true"


async def test_a_server_that_is_not_there_is_said_so(remote: OpenRemote) -> None:
    enter(RequestContext("r", Deadline.after_ms(60_000), LOCAL))
    with pytest.raises(ApiError) as caught:
        await remote(f"http://127.0.0.1:{free_port()}").score("q", ["a"])
    assert (caught.value.status, caught.value.code) == (503, "upstream_unavailable")
