"""The remote backend over a server that is well, a real rerank of ours among them."""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from services.rerank.app import create_app
from services.rerank.models.remote import RemoteModel
from shared.errors import ApiError, StartupError
from shared.settings import RerankRemoteApi
from tests.rerank_server import KEY, OpenRemote, Server, remote_settings
from tests.suite import prepare_suite, serving

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "To reset your password, open the account page and choose 'forgot password'.",
    "",
    "Passwords must have twelve characters.",
    "The cafeteria opens at noon.",
]


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real rerank of ours, with the default model."""
    rerank = prepare_suite(tmp_path_factory.mktemp("ours")).services["rerank"]
    rerank.start()
    yield rerank.url
    rerank.stop()


def by_place(answer: dict[str, Any]) -> list[float]:
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    return [scores[place] for place in range(len(scores))]


@pytest.mark.parametrize("api", ["cohere", "jina", "tei"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_another_refdesk_is_asked_in_every_form(
    ours: str, remote: OpenRemote, api: RerankRemoteApi, slash: str
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


async def test_a_long_text_is_refused_where_the_server_can_say_so(
    ours: str, remote: OpenRemote
) -> None:
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
    remote: OpenRemote, api: RerankRemoteApi, wish: dict[str, Any]
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
    remote: OpenRemote, api: RerankRemoteApi, batches: list[int], path: str
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


async def test_long_documents_share_a_call_up_to_its_size(remote: OpenRemote) -> None:
    server = Server()
    documents = [letter * 150_000 for letter in "abcde"]
    async with serving(server) as url:
        with contextlib.suppress(ApiError):
            await remote(url, "tei").score("q", documents)
    assert sorted(len(one["texts"]) for one in server.seen) == [1, 2, 2]


async def test_no_documents_with_words_need_no_call(remote: OpenRemote) -> None:
    scored = await remote("http://127.0.0.1:9").score("q", ["", " \n"])
    assert (scored.scores, scored.tokens) == ([0.0, 0.0], 0)


async def test_log_odds_become_a_relevance(remote: OpenRemote) -> None:
    told = {"results": [{"index": 1, "relevance_score": -3}, {"index": 0, "relevance_score": 800}]}
    async with serving(Server(JSONResponse(told), JSONResponse(told))) as url:
        scored = await remote(url, "jina-logits").score("q", ["a", "b", ""])
        with pytest.raises(ApiError, match="jina-logits") as caught:
            await remote(url, "jina").score("q", ["a", "b"])
    assert scored.scores == pytest.approx([1, 0.0474, 0], abs=1e-4)
    assert scored.raw_scores[:2] == [800, -3]
    assert caught.value.code == "bad_upstream"


async def test_a_small_request_does_not_wait_for_all_of_a_large_one(remote: OpenRemote) -> None:
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


@pytest.mark.parametrize("url", ["", "ftp://x", "localhost:8080"])
def test_a_url_that_is_none_keeps_the_service_from_starting(url: str) -> None:
    with pytest.raises(StartupError, match="URL"):
        RemoteModel(remote_settings(url))
