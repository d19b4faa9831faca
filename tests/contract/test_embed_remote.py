"""The remote backend of embed against a real HTTP server that misbehaves."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from services.embed.models.base import Kind, Reading
from services.embed.models.opening import open_model
from services.embed.models.remote import RemoteModel
from shared.auth import LOCAL
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError, StartupError
from shared.settings import Settings
from tests.suite import free_port, serving

DENSE: frozenset[Kind] = frozenset({"dense"})
KEY = "sk-very-secret"


def numbers(readings: Sequence[Reading]) -> list[int]:
    """The numbers of the texts that the vectors tell."""
    vectors = np.stack([one.dense for one in readings if one.dense is not None])
    return [round(number) for number in vectors[:, 0] / vectors[:, 1]]


def vector_of(text: str) -> list[float]:
    """A vector that tells the text again: its number, and 1."""
    return [float(text.rpartition(" ")[2] or 0) if text[-1:].isdigit() else 0.0, 1.0, 0.0, 0.0]


def base64_of(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()


def embedded(body: dict[str, Any]) -> dict[str, Any]:
    """What a well-behaved server answers."""
    data = [
        {"index": place, "embedding": base64_of(vector_of(text))}
        for place, text in enumerate(body["input"])
    ]
    tokens = 7 * len(data) + 3
    return {"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def longer(count: int) -> dict[str, Any]:
    """The answer about so many texts of a model whose vectors have more numbers."""
    return {"data": [{"index": at, "embedding": [1.0] * 5} for at in range(count)]}


@dataclass
class Server:
    """An ASGI app with an embeddings API. answers: what it does with the first calls, in turn;
    then it behaves well, as `embed` does. info: of /info; None: it has no such path.
    """

    answers: list[Callable[[dict[str, Any]], Response] | str] = field(default_factory=list)
    info: dict[str, Any] | None = None
    embed: Callable[[dict[str, Any]], dict[str, Any]] = embedded
    calls: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        if request.url.path == "/info" and self.info is not None:
            await JSONResponse(self.info)(scope, receive, send)
            return
        if request.url.path != "/v1/embeddings":
            await PlainTextResponse("nothing here", 404)(scope, receive, send)
            return
        body = await request.json()
        self.calls.append(body)
        self.headers.append(dict(request.headers))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            answer = self.answers.pop(0) if self.answers else None
            if answer == "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
            elif answer == "close":
                start = {"type": "http.response.start", "status": 200}
                await send(start | {"headers": [(b"content-length", b"1000")]})
                await send({"type": "http.response.body", "body": b'{"data"', "more_body": True})
                raise ConnectionError  # uvicorn then closes the connection
            elif callable(answer):
                await answer(body)(scope, receive, send)
            else:
                await asyncio.sleep(0.2 if answer == "slow" else 0.005)
                await JSONResponse(self.embed(body))(scope, receive, send)
        finally:
            self.running -= 1


@asynccontextmanager
async def remote(server: Server, **settings: Any) -> AsyncIterator[RemoteModel]:
    """The model on that server, opened while it behaved; its calls are counted from here."""
    troubles, server.answers = server.answers, []
    async with serving(server) as url:
        wanted = Settings(embed_remote_url=f"{url}/v1", embed_remote_key=KEY, **settings)
        model = await open_model("some/model", "remote", wanted)
        assert isinstance(model, RemoteModel)
        server.answers, server.calls, server.headers = troubles, [], []
        try:
            yield model
        finally:
            await model.close()


def answering(content: Any, status: int = 200, **headers: str) -> Callable[[Any], Response]:
    return lambda _: JSONResponse(content, status, headers)


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], Response]:
    """An answer as it should be, but for a change."""

    def answer(body: dict[str, Any]) -> Response:
        content = embedded(body)
        change(content)
        return PlainTextResponse(json.dumps(content), media_type="application/json")

    return answer


def embeddings_of(*vectors: list[float]) -> Callable[[Any], Response]:
    data = [
        {"index": place, "embedding": base64_of(vector)} for place, vector in enumerate(vectors)
    ]
    return answering({"data": data})


async def test_a_large_request_is_sent_in_batches_a_few_at_a_time() -> None:
    server = Server()
    async with remote(server) as model:
        texts = [f"text {number}" for number in range(1, 501)]
        readings = await model.read(texts, DENSE)
    assert numbers(readings) == list(range(1, 501))
    assert max(len(call["input"]) for call in server.calls) == 32
    assert 1 < server.most_running <= 4
    # Whatever it counted for each call, no token is lost or made up.
    assert sum(one.tokens for one in readings) == sum(7 * len(c["input"]) + 3 for c in server.calls)
    assert server.calls[0]["model"] == "some/model"
    assert server.calls[0]["encoding_format"] == "base64"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_long_texts_make_small_batches() -> None:
    server = Server()
    async with remote(server) as model:
        await model.read(["long " * 20_000] * 5 + ["short"] * 3, DENSE)
    assert sorted(len(call["input"]) for call in server.calls) == [2, 2, 4]


async def test_what_a_server_says_of_itself_is_kept_to() -> None:
    tei = {"model_id": "x", "model_sha": "abc", "model_dtype": "float16", "max_input_length": 512}
    server = Server(info=tei | {"max_client_batch_size": 5, "auto_truncate": True})
    async with remote(server) as model:
        await model.read(["x"] * 12, DENSE)
        assert max(len(call["input"]) for call in server.calls) == 5
        assert (model.info.max_tokens, model.info.precision) == (512, "float16")
    server.info = None
    async with remote(server) as model:
        assert (model.info.max_tokens, model.info.dimension) == (None, 4)
        with pytest.raises(ApiError) as caught:
            model.tokenizer_json()
    assert (caught.value.status, caught.value.code) == (404, "no_tokenizer")


async def test_another_model_behind_the_same_name_has_another_revision() -> None:
    server = Server()
    async with serving(server) as url:
        wanted = Settings(embed_remote_url=f"{url}/v1", embed_remote_key=KEY)

        async def revision() -> str:
            model = await open_model("some/model", "remote", wanted)
            await model.close()
            return model.info.revision

        found = [await revision()]
        assert await revision() == found[0]
        server.info = {"model_sha": "abc"}
        found.append(await revision())
        server.info = {"model_sha": "def"}
        found.append(await revision())
        # A server that says nothing of its model shows another one by the length of its vectors.
        server.info, server.embed = None, lambda body: longer(len(body["input"]))
        found.append(await revision())
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "trouble",
    [
        "slow",
        "close",
        answering({"error": "busy"}, 429, **{"Retry-After": "0"}),
        answering({"error": "busy"}, 429, **{"Retry-After": "1"}),
        answering({"error": {"message": "conflict"}}, 409),
        lambda _: PlainTextResponse("oops", 500),
        lambda _: PlainTextResponse("<html>", 502),
        answering({"error": "loading"}, 503),
    ],
)
async def test_what_passes_is_waited_for(trouble: Any) -> None:
    server = Server([trouble])
    async with remote(server) as model:
        [one] = await model.read(["text 5"], DENSE)
    assert one.dense is not None
    assert np.allclose(one.dense, np.array([5, 1, 0, 0]) / 26**0.5)
    assert len(server.calls) == (1 if trouble == "slow" else 2)


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (lambda _: PlainTextResponse("oops", 500), 502),
        (answering({"error": "busy"}, 429, **{"Retry-After": "0"}), 503),
        ("close", 503),
    ],
)
async def test_what_does_not_pass_is_given_up_on(trouble: Any, status: int) -> None:
    server = Server([trouble] * 9)
    async with remote(server) as model:
        with pytest.raises(ApiError) as caught:
            await model.read(["x"], DENSE)
        assert caught.value.status == status
        assert len(server.calls) == 4
        server.answers.clear()
        assert len(await model.read(["x"], DENSE)) == 1  # and the next request is none the worse


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_is_refused_is_not_asked_again_and_the_key_stays_here(status: int) -> None:
    told = {"error": {"message": f"no: {KEY} is not enough", "code": "nope"}}
    server = Server([answering(told, status)])
    async with remote(server) as model:
        with pytest.raises(ApiError) as caught:
            await model.read(["x"], DENSE)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")
    assert str(status) in caught.value.message
    assert KEY not in caught.value.message
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (changed(lambda content: content["data"].pop()), "1 vectors for 2 texts"),
        (changed(lambda content: content["data"].append(content["data"][0])), "3 vectors"),
        (changed(lambda content: content["data"][0].update(index=1)), "indices"),
        (changed(lambda content: content["data"][0].update(index=-1)), "indices"),
        (changed(lambda content: content["data"][0].update(embedding="####")), "no list"),
        (changed(lambda content: content["data"][0].update(embedding="AAAA")), "no list"),
        (changed(lambda content: content["data"][0].update(embedding=[1, "x"])), "no list"),
        (changed(lambda content: content["data"][0].update(embedding=[float("nan")])), "JSON"),
        (changed(lambda content: content["data"][0].update(embedding=[1, 2, 3])), "no list"),
        (changed(lambda content: content.update(data=None)), "no list"),
        (embeddings_of([1, 2, 3], [4, 5, 6]), "vectors of 3 numbers, and of 4 before"),
        (embeddings_of([], []), "all 0"),
        (embeddings_of([1, 1, 1, 1], [float("nan")] * 4), "not finite"),
        (embeddings_of([float("inf"), 0, 0, 0], [1, 1, 1, 1]), "not finite"),
        (embeddings_of([0, 0, 0, 0], [1, 1, 1, 1]), "all 0"),
        (answering({"object": "list"}), "no list"),
        (answering([]), "no list"),
        (lambda _: PlainTextResponse("<html>hello</html>"), "not JSON"),
        (lambda _: PlainTextResponse(""), "not JSON"),
        (lambda _: Response(b"moved", 302, {"Location": "/elsewhere"}), "302"),
    ],
)
async def test_rubbish_is_a_502_that_says_what_came(answer: Any, words: str) -> None:
    server = Server([answer] * 4)
    async with remote(server) as model:
        with pytest.raises(ApiError, match=words) as caught:
            await model.read(["x", "y"], DENSE)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


async def test_vectors_are_put_in_order_and_may_come_as_numbers() -> None:
    def answer(body: dict[str, Any]) -> Response:
        data = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
        return JSONResponse({"data": data[::-1], "usage": None})

    async with remote(Server([answer])) as model:
        readings = await model.read(["text 1", "text 2", "text 3"], DENSE)
    assert numbers(readings) == [1, 2, 3]
    assert [one.tokens for one in readings] == [0, 0, 0]  # it did not say


async def test_a_server_that_hangs_is_left_when_the_time_is_up() -> None:
    server = Server(["hang"])
    async with remote(server) as model:
        enter(RequestContext("id", Deadline.after_ms(200), LOCAL))
        with pytest.raises(ApiError) as caught:
            await model.read(["x"], DENSE)
        assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")
        await server.left.wait()


async def test_a_server_that_asks_for_more_patience_than_there_is_gets_none() -> None:
    server = Server([answering({"error": "busy"}, 429, **{"Retry-After": "20"})])
    async with remote(server) as model:
        enter(RequestContext("id", Deadline.after_ms(5_000), LOCAL))
        with pytest.raises(ApiError) as caught:
            await model.read(["x"], DENSE)
    assert caught.value.status == 503
    assert caught.value.headers["Retry-After"] == "20"
    assert len(server.calls) == 1


async def test_a_caller_who_leaves_ends_the_calls_made_for_it() -> None:
    server = Server(["hang"] * 4)
    async with remote(server, embed_queue_tokens=300) as model:
        reading = asyncio.create_task(model.read(["x"] * 320, DENSE))
        while server.running < 4:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as caught:
            await model.read(["y"], DENSE)
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.left.wait()
        assert len(await model.read(["y"], DENSE)) == 1
    assert len(server.calls) == 5


async def test_one_refused_batch_ends_the_request_and_its_other_batches() -> None:
    server = Server([answering({"error": {"message": "too long"}}, 400), *["hang"] * 3])
    async with remote(server) as model:
        with pytest.raises(ApiError, match="too long"):
            await model.read(["x"] * 320, DENSE)
    assert len(server.calls) <= 4


async def test_another_revision_behind_the_same_name_is_noticed() -> None:
    with_revision = changed(lambda content: content.update(revision="new"))
    async with remote(Server([with_revision])) as model:
        with pytest.raises(ApiError, match="another revision") as caught:
            await model.read(["x"], DENSE)
    assert caught.value.status == 502


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "REFDESK_EMBED_REMOTE_URL is empty"),
        ("localhost:8080", "must start with http"),
        ("http://127.0.0.1:PORT/v1", "does not answer"),
    ],
)
async def test_a_server_that_is_not_there_is_told_when_the_model_is_opened(
    url: str, words: str
) -> None:
    url = url.replace("PORT", str(free_port()))  # nothing listens there
    with pytest.raises(StartupError, match=words):
        await open_model("m", "remote", Settings(embed_remote_url=url, embed_remote_key=KEY))


async def test_a_model_that_the_server_does_not_have_is_told_when_it_is_opened() -> None:
    told = {"error": {"message": "there is no model 'm' here"}}
    async with serving(Server([answering(told, 404)])) as url:
        with pytest.raises(StartupError, match="there is no model 'm' here") as caught:
            await open_model("m", "remote", Settings(embed_remote_url=f"{url}/v1"))
    assert "REFDESK_EMBED_REMOTE_URL" in str(caught.value)
