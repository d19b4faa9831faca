"""The desk's view of embed and rerank: what it sends, and that it believes no rubbish."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import orjson
import pytest
from fastapi import FastAPI, Request, Response

from services.retrieve.corpus.embedding import Embedded, Librarian
from services.retrieve.search.curator import Curator
from services.retrieve.stores.corpus import CorpusInfo
from shared.client import ServiceClient
from shared.errors import ApiError
from shared.settings import Settings
from tests.suite import free_port, serving

Result = TypeVar("Result")

CORPUS = CorpusInfo(
    name="handbook",
    description="",
    language="en",
    model="mini",
    revision="r1",
    dimension=4,
    chunk_tokens=256,
    chunk_overlap=32,
    curate=True,
    chunker="test",
    documents=0,
    chunks=0,
    writes=0,
    created_at=datetime(2024, 1, 1, tzinfo=UTC),
)


def base64_vector(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def peer(answers: dict[str, Any], seen: list[tuple[str, Any]] | None = None) -> FastAPI:
    """A service that answers each path with a fixed body (bytes as they are) and notes requests."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(path: str, request: Request) -> Response:
        body = await request.body()
        if seen is not None:
            seen.append((path, orjson.loads(body) if body else None))
        told = answers[path]
        return Response(told if isinstance(told, bytes) else orjson.dumps(told))

    return app


def embed_peer(embedding: Any, model: str = "mini", revision: str = "r1") -> dict[str, Any]:
    return {
        "info": {"model": model, "revision": revision, "dimension": 4, "max_tokens": 256},
        "v1/embeddings": {"data": [{"index": 0, "embedding": embedding}]},
    }


def telling(revision: Any, answers: dict[str, Any]) -> dict[str, Any]:
    """The answers of an embed that tells the revision with its vectors."""
    return {**answers, "v1/embeddings": {**answers["v1/embeddings"], "revision": revision}}


def with_peer(app: FastAPI, work: Callable[[ServiceClient], Awaitable[Result]]) -> Result:
    """Run `work` with a client of `app`, served over real HTTP."""

    async def main() -> Result:
        async with serving(app) as url:
            client = ServiceClient("peer", url, settings=Settings())
            try:
                return await work(client)
            finally:
                await client.close()

    return asyncio.run(main())


def query_vectors(answers: dict[str, Any], *, sparse: bool = False) -> Embedded:
    return with_peer(
        peer(answers),
        lambda client: Librarian(client).query_vectors(["q"], None, CORPUS, sparse=sparse),
    )


def relevance(answer: Any, *documents: str) -> list[float]:
    return with_peer(
        peer({"rerank": answer}), lambda client: Curator(client).relevance("q", documents)
    )


def scores(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}


def test_the_querys_vector_is_made_a_unit_vector() -> None:
    [vector] = query_vectors(embed_peer(base64_vector(3, 0, 4, 0))).dense
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx([0.6, 0, 0.8, 0])


def test_the_query_is_sent_as_a_query_for_the_corpus_own_model() -> None:
    seen: list[tuple[str, Any]] = []
    app = peer(embed_peer(base64_vector(1, 0, 0, 0)), seen)
    with_peer(app, lambda client: Librarian(client).query_vectors(["what?"], None, CORPUS))
    body = {"input": ["what?"], "model": "mini", "encoding_format": "base64", "input_type": "query"}
    assert seen[0] == ("v1/embeddings", body)


def test_sparse_vectors_come_in_the_same_call_for_queries_and_for_a_passage() -> None:
    seen: list[tuple[str, Any]] = []
    answers = telling("r1", embed_peer(base64_vector(1, 0, 0, 0)))
    answers["v1/embeddings"]["data"][0]["sparse"] = {"indices": [3, 5], "values": [0.5, 2]}
    made = with_peer(
        peer(answers, seen),
        lambda client: Librarian(client).query_vectors(["q"], "made up", CORPUS, sparse=True),
    )
    assert made.dense.shape == (2, 4)
    assert [one.tokens.tolist() for one in made.sparse or ()] == [[3, 5], [3, 5]]
    wanted = [(body["input_type"], body["outputs"]) for _, body in seen]
    assert wanted == [("query", ["dense", "sparse"]), ("document", ["dense", "sparse"])]


def test_a_revision_told_with_the_vector_is_believed_and_nothing_else_asked() -> None:
    seen: list[tuple[str, Any]] = []
    answers = telling("r1", embed_peer(base64_vector(1, 0, 0, 0)))
    with_peer(
        peer(answers, seen), lambda client: Librarian(client).query_vectors(["q"], None, CORPUS)
    )
    assert [path for path, _ in seen] == ["v1/embeddings"]


def test_a_model_that_is_exchanged_between_two_queries_is_noticed_at_once() -> None:
    answers = telling("r1", embed_peer(base64_vector(1, 0, 0, 0)))

    async def exchanged(client: ServiceClient) -> None:
        librarian = Librarian(client)
        await librarian.query_vectors(["a"], None, CORPUS)
        answers.update(telling("r2", embed_peer(base64_vector(1, 0, 0, 0), revision="r2")))
        with pytest.raises(ApiError, match="embed serves mini r2") as caught:
            await librarian.query_vectors(["b"], None, CORPUS)
        assert (caught.value.status, caught.value.code) == (409, "model_mismatch")

    with_peer(peer(answers), exchanged)


def test_the_revision_that_made_the_vector_counts_not_that_of_a_moment_later() -> None:
    with pytest.raises(ApiError, match="embed serves mini r2"):
        query_vectors(telling("r2", embed_peer(base64_vector(1, 0, 0, 0))))


def test_a_server_that_tells_no_revision_is_asked_for_it_with_every_query() -> None:
    seen: list[tuple[str, Any]] = []
    answers = embed_peer(base64_vector(1, 0, 0, 0))

    async def exchanged(client: ServiceClient) -> None:
        librarian = Librarian(client)
        await librarian.query_vectors(["a"], None, CORPUS)
        answers["info"]["revision"] = "r2"
        with pytest.raises(ApiError, match="embed serves mini r2"):
            await librarian.query_vectors(["b"], None, CORPUS)

    with_peer(peer(answers, seen), exchanged)
    assert [path for path, _ in seen] == ["v1/embeddings", "info"] * 2


@pytest.mark.parametrize(
    "embedding",
    [
        base64_vector(1, 0, 0),
        base64_vector(1, 0, 0, 0, 0),
        base64_vector(float("nan"), 0, 0, 0),
        base64_vector(float("inf"), 0, 0, 0),
        base64_vector(0, 0, 0, 0),
        "not base64!",
        "AAA=",
        "",
        [1.0, 0.0, 0.0, 0.0],
        None,
    ],
)
def test_a_vector_that_is_none_is_refused(embedding: Any) -> None:
    with pytest.raises(ApiError) as caught:
        query_vectors(embed_peer(embedding))
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


@pytest.mark.parametrize("answer", [{}, {"data": []}, {"data": None}, [], 7, b"<html>"])
def test_an_answer_without_an_embedding_is_refused(answer: Any) -> None:
    with pytest.raises(ApiError) as caught:
        query_vectors({**embed_peer(""), "v1/embeddings": answer})
    assert caught.value.status == 502


@pytest.mark.parametrize(("model", "revision"), [("mini", "r2"), ("maxi", "r1")])
def test_another_model_is_refused_and_the_way_out_is_named(model: str, revision: str) -> None:
    with pytest.raises(ApiError) as caught:
        query_vectors(embed_peer(base64_vector(1, 0, 0, 0), model, revision))
    assert (caught.value.status, caught.value.code) == (409, "model_mismatch")
    for word in ("handbook", "mini r1", f"{model} {revision}"):
        assert word in caught.value.message


def test_scores_come_back_in_the_order_of_the_documents() -> None:
    assert relevance(scores((1, 0.9), (0, 0.25), (2, 0)), "a", "b", "c") == [0.25, 0.9, 0.0]


def test_a_text_is_sent_once_and_its_score_given_to_each_document_with_it() -> None:
    seen: list[tuple[str, Any]] = []
    app = peer({"rerank": scores((0, 0.5), (1, 0.75))}, seen)
    found = with_peer(app, lambda client: Curator(client).relevance("q", ["a", "b", "a"]))
    assert found == [0.5, 0.75, 0.5]
    assert seen == [("rerank", {"query": "q", "documents": ["a", "b"]})]


@pytest.mark.parametrize(
    "answer",
    [
        scores((0, 0.5)),
        scores((0, 0.5), (0, 0.5)),
        scores((0, 0.5), (2, 0.5)),
        scores((0, 0.5), (1, 0.5), (1, 0.5)),
        scores((0, 0.5), (1, None)),
        scores((0, 0.5), (1, "0.5")),
        scores((0, 0.5), (1, True)),
        scores((0, 0.5), (1, 1.5)),
        scores((0, 0.5), (1, -0.1)),
        b'{"results": [{"index": 0, "relevance_score": NaN}]}',
        {"results": [[0, 0.5], [1, 0.5]]},
        {"results": None},
        {},
        [],
    ],
)
def test_scores_that_do_not_fit_the_documents_are_refused(answer: Any) -> None:
    with pytest.raises(ApiError) as caught:
        relevance(answer, "a", "b")
    assert (caught.value.status, caught.value.code) == (502, "bad_upstream")


def test_a_service_that_is_not_there_is_named() -> None:
    async def ask() -> None:
        client = ServiceClient("embed", f"http://127.0.0.1:{free_port()}", settings=Settings())
        try:
            await Librarian(client).query_vectors(["q"], None, CORPUS)
        finally:
            await client.close()

    with pytest.raises(ApiError) as caught:
        asyncio.run(ask())
    assert caught.value.status == 503
    assert "embed" in caught.value.message
