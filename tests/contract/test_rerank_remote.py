"""The remote backend: against a real rerank of ours, and against a server that misbehaves."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from services.rerank.app import create_app
from services.rerank.models.base import Scored
from services.rerank.models.remote import RemoteModel
from shared.auth import LOCAL
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError, StartupError
from shared.settings import RerankRemoteApi, Settings
from tests.suite import free_port, prepare_suite, serving

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "To reset your password, open the account page and choose 'forgot password'.",
    "",
    "Passwords must have twelve characters.",
    "The cafeteria opens at noon.",
]
KEY = "a-key-that-nobody-may-see"

Open = Callable[..., RemoteModel]


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real rerank of ours, with the default model."""
    rerank = prepare_suite(tmp_path_factory.mktemp("ours")).services["rerank"]
    rerank.start()
    yield rerank.url
    rerank.stop()


@pytest.fixture
async def remote() -> AsyncIterator[Open]:
    models: list[RemoteModel] = []

    def make(url: str, api: RerankRemoteApi = "jina", **more: int) -> RemoteModel:
        models.append(RemoteModel(remote_settings(url, api, **more)))
        return models[-1]

    yield make
    for model in models:
        await model.close()


def remote_settings(url: str, api: RerankRemoteApi = "jina", **more: Any) -> Settings:
    return Settings(
        **more,
        rerank_backend="remote",
        rerank_remote_url=url,
        rerank_remote_api=api,
        rerank_remote_key=SecretStr(KEY),
    )


class Server:
    """A rerank server of the outside world: answers in turn what it is told, and then well."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        request = Request(scope, receive)
        body = await request.json()
        headers = dict(request.headers)
        self.seen.append({**body, "path": request.url.path, "headers": headers})
        response = self.answers.pop(0) if self.answers else JSONResponse(self.good(body))
        await response(scope, receive, send)

    @staticmethod
    def good(body: dict[str, Any]) -> Any:
        """The longer a document, the better; best first."""
        texts: list[str] = body["texts"] if "texts" in body else body["documents"]
        places = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        if "texts" in body:
            return [{"index": place, "score": len(texts[place]) - 20.0} for place in places]
        return {
            "results": [
                {"index": place, "relevance_score": len(texts[place]) / 1000} for place in places
            ],
            "usage": {"total_tokens": 10},
        }


def by_place(answer: dict[str, Any]) -> list[float]:
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    return [scores[place] for place in range(len(scores))]


@pytest.mark.parametrize("api", ["cohere", "jina", "tei"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_another_refdesk_is_asked_in_every_form(
    ours: str, remote: Open, api: RerankRemoteApi, slash: str
) -> None:
    scored = await remote(ours + slash, api).score(QUERY, DOCUMENTS)
    async with httpx.AsyncClient(base_url=ours, timeout=60) as direct:
        body = {"query": QUERY, "documents": DOCUMENTS}
        relevance = by_place((await direct.post("/rerank", json=body)).json())
        raw = by_place((await direct.post("/rerank", json={**body, "raw_scores": True})).json())
    if api == "tei":
        relevance = [1 / (1 + math.exp(-one)) for one in raw]
    told = [place for place, text in enumerate(DOCUMENTS) if text]
    assert [scored.scores[place] for place in told] == pytest.approx(
        [relevance[place] for place in told], abs=0.01
    )
    assert scored.scores[2] == 0.0
    assert scored.scores[0] == scored.scores[4]
    assert max(scored.scores) == scored.scores[1]
    if api == "tei":
        assert scored.tokens is None
    elif api == "jina":
        assert scored.tokens is not None
        assert scored.tokens > 30


async def test_the_service_over_a_remote_model_is_as_any_other(ours: str) -> None:
    settings = remote_settings(ours)
    app = create_app(settings, RemoteModel(settings))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        assert (await client.get("/ready")).status_code == 200
        info = (await client.get("/info")).json()
        assert (info["backend"], info["max_tokens"]) == ("remote", None)
        assert "remote" in info["calibration"]
        body: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS, "top_n": 2}
        answer = (await client.post("/rerank", json=body)).json()
        assert [one["index"] for one in answer["results"]] == [1, 3]
        assert answer["usage"]["total_tokens"] > 30
        assert "tokens_saved" not in answer
        texts = {"query": QUERY, "texts": DOCUMENTS, "truncate": False}
        refused = await client.post("/rerank", json=texts)
        assert refused.status_code == 422
        assert refused.json()["error_type"] == "Validation"


async def test_tokens_that_are_not_told_are_not_invented(ours: str) -> None:
    settings = remote_settings(ours, "tei")
    app = create_app(settings, RemoteModel(settings))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    assert len(answer.json()["results"]) == len(DOCUMENTS)
    assert "usage" not in answer.json()


async def test_a_long_text_is_refused_where_the_server_can_say_so(ours: str, remote: Open) -> None:
    model = remote(ours, "tei")
    assert len((await model.score(QUERY, ["word " * 300])).scores) == 1
    with pytest.raises(ApiError) as caught:
        await model.score(QUERY, ["short", "word " * 300], whole=True)
    assert (caught.value.status, caught.value.code) == (413, "text_too_long")
    assert "302" in caught.value.message


@pytest.mark.parametrize(
    ("api", "wish"),
    [
        ("tei", {"max_tokens": 3}),
        ("jina", {"whole": True}),
        ("cohere", {"keep": "end"}),
    ],
)
async def test_what_the_server_cannot_be_asked_is_refused(
    remote: Open, api: RerankRemoteApi, wish: dict[str, Any]
) -> None:
    server = Server()
    async with serving(server) as url:
        with pytest.raises(ApiError) as caught:
            await remote(url, api).score("q", ["a"], **wish)
    assert (caught.value.status, caught.value.code) == (422, "not_supported")
    assert server.seen == []


@pytest.mark.parametrize(
    ("api", "batches", "path"),
    [
        ("tei", [32, 32, 11], "/rerank"),
        ("jina", [75], "/v1/rerank"),
        ("cohere", [75], "/v2/rerank"),
    ],
)
async def test_many_documents_go_in_batches_and_every_score_finds_its_document(
    remote: Open, api: RerankRemoteApi, batches: list[int], path: str
) -> None:
    server = Server()
    documents = [f"{'x' * place}{place}" for place in range(75)]
    async with serving(server) as url:
        scored = await remote(f"{url}/v1" if api == "jina" else url, api).score(
            "q", [*documents, "", documents[3]], max_tokens=None if api == "tei" else 7
        )
    field = "texts" if api == "tei" else "documents"
    sizes = [len(one[field]) for one in server.seen]
    assert sorted(sizes, reverse=True) == batches
    assert {one["path"] for one in server.seen} == {path}
    assert {one["headers"]["authorization"] for one in server.seen} == {f"Bearer {KEY}"}
    assert scored.scores[:75] == sorted(scored.scores[:75])
    assert scored.scores[75:] == [0.0, scored.scores[3]]
    assert all(math.isfinite(one) for one in scored.raw_scores)
    if api != "tei":
        assert server.seen[0]["top_n"] == 75
        assert server.seen[0]["max_tokens_per_doc"] == 7
        assert scored.tokens == 10


async def test_long_documents_share_a_call_up_to_its_size(remote: Open) -> None:
    server = Server()
    documents = [letter * 150_000 for letter in "abcde"]
    async with serving(server) as url:
        with contextlib.suppress(ApiError):
            await remote(url, "tei").score("q", documents)
    assert sorted(len(one["texts"]) for one in server.seen) == [1, 2, 2]


async def test_no_documents_with_words_need_no_call(remote: Open) -> None:
    scored = await remote("http://127.0.0.1:9").score("q", ["", " \n"])
    assert (scored.scores, scored.tokens) == ([0.0, 0.0], 0)


async def test_log_odds_become_a_relevance(remote: Open) -> None:
    told = {"results": [{"index": 1, "relevance_score": -3}, {"index": 0, "relevance_score": 800}]}
    async with serving(Server(JSONResponse(told), JSONResponse(told))) as url:
        scored = await remote(url, "jina-logits").score("q", ["a", "b", ""])
        with pytest.raises(ApiError, match="jina-logits") as caught:
            await remote(url, "jina").score("q", ["a", "b"])
    assert scored.scores == pytest.approx([1, 0.0474, 0], abs=1e-4)
    assert scored.raw_scores[:2] == [800, -3]
    assert caught.value.code == "bad_upstream"


async def asked(remote: Open, server: Server, *, deadline_ms: float = 60_000) -> Scored:
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
async def test_what_may_pass_is_tried_again(remote: Open, failure: Response) -> None:
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
    remote: Open, status: int, ours: int, code: str
) -> None:
    server = Server(*(JSONResponse({}, status, {"Retry-After": "0"}) for _ in range(9)))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server)
    assert (caught.value.status, caught.value.code) == (ours, code)
    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
async def test_a_refusal_is_final_and_keeps_the_key_to_itself(
    remote: Open, status: int, caplog: pytest.LogCaptureFixture
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
    remote: Open, told: Any
) -> None:
    server = Server(JSONResponse(told))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server)
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")
    assert len(server.seen) == 1


@pytest.mark.parametrize("text", ["<html>", json.dumps(results((0, math.nan), (1, 1))), "", "{"])
async def test_an_answer_that_is_no_json_is_refused(remote: Open, text: str) -> None:
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


async def test_a_server_that_hangs_costs_no_more_than_the_deadline(remote: Open) -> None:
    server = Server()
    server.answers = [never(server)]
    with pytest.raises(ApiError) as caught:
        await asked(remote, server, deadline_ms=300)
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")


async def test_a_pause_that_the_deadline_does_not_leave_is_not_waited_for(remote: Open) -> None:
    server = Server(JSONResponse({}, 429, {"Retry-After": "20"}))
    with pytest.raises(ApiError) as caught:
        await asked(remote, server, deadline_ms=5000)
    assert caught.value.code == "upstream_unavailable"
    assert caught.value.headers == {"Retry-After": "20", "x-should-retry": "false"}
    assert len(server.seen) == 1


async def test_a_caller_who_leaves_ends_the_call(remote: Open) -> None:
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


async def test_requests_are_refused_while_too_many_texts_wait(remote: Open) -> None:
    server = Server()
    server.answers = [never(server)]
    async with serving(server) as url:
        model = remote(url, rerank_queue=2)
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


async def test_a_small_request_does_not_wait_for_all_of_a_large_one(remote: Open) -> None:
    server = Server()
    async with serving(server) as url:
        model = remote(url, "tei")
        large = asyncio.create_task(model.score("large", [f"text {n}" for n in range(32 * 40)]))
        while not server.seen:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)
        await model.score("small", ["a"])
        assert not large.done()
        await large
    assert len(server.seen) == 41


async def test_a_server_that_is_not_there_is_said_so(remote: Open) -> None:
    enter(RequestContext("r", Deadline.after_ms(60_000), LOCAL))
    with pytest.raises(ApiError) as caught:
        await remote(f"http://127.0.0.1:{free_port()}").score("q", ["a"])
    assert (caught.value.status, caught.value.code) == (503, "upstream_unavailable")


@pytest.mark.parametrize("url", ["", "ftp://x", "localhost:8080"])
def test_a_url_that_is_none_keeps_the_service_from_starting(url: str) -> None:
    with pytest.raises(StartupError, match="URL"):
        RemoteModel(remote_settings(url))
