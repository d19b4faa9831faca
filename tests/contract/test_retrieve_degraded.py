"""The desk when what it depends on is gone, hangs, answers rubbish or changes under a search."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import TokenCounter, title_line
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.protocol import RetrieveRequest, RetrieveResponse
from services.retrieve.search import pipeline
from services.retrieve.search.candidates import Shelves
from services.retrieve.search.curator import Curator
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.neighbours import MOST_CHARACTERS
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import EVERYTHING, ChunkRecord, CorpusStore, Extent
from shared.client import ServiceClient
from shared.context import Deadline
from shared.settings import Settings
from tests.shelf import QUERY, TEXTS, Reply, desk, fixed, peer, with_peer
from tests.suite import Suite

MODEL = "all-MiniLM-L6-v2"


def ask(
    folder: Path, embed: str = "", rerank: str = "", deadline_ms: int = 60_000, **more: Any
) -> httpx.Response:
    """What a desk over `folder` answers to the query."""

    async def main() -> httpx.Response:
        async with desk(folder, embed, rerank) as client:
            return await client.post(
                "/retrieve",
                json={"query": QUERY, "corpora": ["shelf"], **more},
                headers={"x-deadline-ms": str(deadline_ms)},
            )

    return asyncio.run(main())


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["document_id"] for hit in answer.json()["hits"]]


async def hang(request: Request) -> Response:
    """Give no answer for as long as the caller waits."""
    while not await request.is_disconnected():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)
    return Response()


def embedding(*numbers: float) -> bytes:
    data = base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()
    return json.dumps({"data": [{"embedding": data, "index": 0}]}).encode()


RUBBISH_VECTORS = {
    "another dimension": fixed(embedding(1, 0, 0)),
    "NaN": fixed(embedding(*[float("nan")] * 384)),
    "zeros": fixed(embedding(*[0.0] * 384)),
    "no vector": fixed(b'{"data": []}'),
    "no JSON": fixed(b"<html>502 Bad Gateway</html>"),
    "an error": fixed(b"oops", 500),
    "hangs": hang,
}

RUBBISH_SCORES = {
    "one score for five": fixed(b'{"results": [{"index": 0, "relevance_score": 0.5}]}'),
    "NaN": fixed(b'{"results": [{"index": 0, "relevance_score": NaN}]}'),
    "no scores": fixed(b"{}"),
    "no JSON": fixed(b"<html>502 Bad Gateway</html>"),
    "an error": fixed(b"oops", 500),
    "overloaded": fixed(b"later", 429),
    "hangs": hang,
}


def test_without_embed_the_words_are_searched_and_the_answer_says_so(
    shelf: Path, suite: Suite
) -> None:
    answer = ask(shelf, rerank=suite.url("rerank"))
    assert ids(answer)[0] == "moon"
    assert answer.json()["degraded"] == ["dense"]
    assert answer.json()["signals"]["agreement"] == 0


def test_without_rerank_the_fused_order_is_given_and_the_answer_says_so(
    shelf: Path, suite: Suite
) -> None:
    answer = ask(shelf, embed=suite.url("embed"))
    assert answer.json()["degraded"] == ["curate"]
    plain = ask(shelf, embed=suite.url("embed"), curate=False)
    assert plain.json()["degraded"] == []
    assert answer.json()["hits"] == plain.json()["hits"]


def test_without_both_the_words_still_answer(shelf: Path) -> None:
    answer = ask(shelf)
    assert ids(answer)[0] == "moon"
    assert answer.json()["degraded"] == ["dense", "curate"]


def test_where_the_only_arm_is_gone_the_search_fails_and_names_the_way_out(shelf: Path) -> None:
    answer = ask(shelf, arms=["dense"])
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_arm"
    assert "bm25" in answer.json()["error"]["message"]


@pytest.mark.parametrize("reply", RUBBISH_VECTORS.values(), ids=RUBBISH_VECTORS.keys())
def test_an_embed_that_answers_rubbish_counts_as_gone(
    shelf: Path, suite: Suite, reply: Reply
) -> None:
    info = httpx.get(f"{suite.url('embed')}/info").json()

    async def search(url: str) -> httpx.Response:
        async with desk(shelf, embed=url) as client:
            return await client.post(
                "/retrieve",
                json={"query": QUERY, "corpora": ["shelf"], "curate": False},
                headers={"x-deadline-ms": "1200" if reply is hang else "5000"},
            )

    answer = with_peer(peer(info, reply), search)
    assert ids(answer)[0] == "moon"
    assert answer.json()["degraded"] == ["dense"]


@pytest.mark.parametrize("reply", RUBBISH_SCORES.values(), ids=RUBBISH_SCORES.keys())
def test_a_rerank_that_answers_rubbish_counts_as_gone(shelf: Path, reply: Reply) -> None:
    async def search(url: str) -> httpx.Response:
        async with desk(shelf, rerank=url) as client:
            return await client.post(
                "/retrieve",
                json={"query": QUERY, "corpora": ["shelf"], "arms": ["bm25"]},
                headers={"x-deadline-ms": "1200" if reply is hang else "5000"},
            )

    answer = with_peer(peer({}, reply), search)
    assert ids(answer)[0] == "moon"
    assert answer.json()["degraded"] == ["curate"]


def test_an_embed_with_another_model_is_refused_and_words_can_still_be_searched(
    shelf: Path, suite: Suite
) -> None:
    info = {**httpx.get(f"{suite.url('embed')}/info").json(), "revision": "another"}

    async def search(url: str) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        async with desk(shelf, embed=url) as client:
            body = {"query": QUERY, "corpora": ["shelf"], "curate": False}
            return (
                await client.post("/retrieve", json=body),
                await client.post("/retrieve", json={**body, "arms": ["bm25"]}),
                await client.get("/ready"),
            )

    refused, words, ready = with_peer(peer(info, fixed(embedding(*[1.0] * 384))), search)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "model_mismatch"
    assert ids(words)[0] == "moon"
    assert words.json()["degraded"] == []
    assert ready.json()["of_another_model"] == 2
    assert set(ready.json()["faults"]) == {"secret", "shelf"}
    assert "start embed with the corpus's model" in ready.json()["faults"]["shelf"]


@pytest.mark.parametrize("listed", [True, False])
def test_readiness_asks_embed_for_the_names_of_its_models_and_loads_none(
    shelf: Path, suite: Suite, listed: bool
) -> None:
    default = {**httpx.get(f"{suite.url('embed')}/info").json(), "model": "another"}
    asked: list[str] = []
    embed = FastAPI()

    @embed.get("/info")
    async def info(request: Request) -> Response:
        asked.append(str(request.url.query))
        broken = "model" in request.query_params  # what can't be loaded is one model's fault
        return Response("" if broken else json.dumps(default), 503 if broken else 200)

    @embed.get("/v1/models")
    async def models() -> dict[str, Any]:
        asked.append("models")
        return {"data": [{"id": one} for one in ("another", *([MODEL] if listed else []))]}

    async def ready(url: str) -> httpx.Response:
        async with desk(shelf, embed=url) as client:
            return await client.get("/ready")

    answer = with_peer(embed, ready)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["faults"]) == (set() if listed else {"secret", "shelf"})
    assert asked == ["", "models"]


def test_the_curator_reads_what_was_embedded(suite: Suite, tmp_path: Path) -> None:
    """A title is cut for the embedder; behind a long one the curator must not see another text."""
    title = "On the distances of celestial bodies from one another and from their moons " * 4
    read: list[str] = []

    async def note(request: Request) -> Response:
        read.extend((await request.json())["documents"])
        return Response('{"results": [{"index": 0, "relevance_score": 0.5}]}')

    async def search(url: str) -> list[httpx.Response]:
        async with desk(tmp_path, embed=suite.url("embed"), rerank=url) as client:
            (await client.put("/corpora/titled")).raise_for_status()
            document = {"id": "moon", "title": title, "text": TEXTS["moon"]}
            body: dict[str, Any] = {"documents": [document]}
            (await client.post("/corpora/titled/documents", json=body)).raise_for_status()
            body = {"query": QUERY, "corpora": ["titled"]}
            return [
                await client.post("/retrieve", json=body),
                await client.post("/retrieve", json={**body, "arms": ["bm25"]}),
            ]

    answers = with_peer(peer({}, note), search)
    assert [answer.json()["degraded"] for answer in answers] == [[], []]
    stored = answers[0].json()["hits"][0]["title"]
    counter = TokenCounter(httpx.get(f"{suite.url('embed')}/v1/models/{MODEL}/tokenizer").content)
    embedded = title_line(stored, counter, 256) + TEXTS["moon"]
    assert len(embedded) < len(stored)
    assert read == [embedded, f"{stored}\n{TEXTS['moon']}"]


def test_the_desk_is_not_ready_without_embed_but_without_rerank(shelf: Path, suite: Suite) -> None:
    async def ready(embed: str) -> httpx.Response:
        async with desk(shelf, embed=embed) as client:
            return await client.get("/ready")

    without = asyncio.run(ready(suite.url("embed")))
    assert without.status_code == 200
    assert "rerank" in without.json()["dependencies"]["rerank"]
    assert asyncio.run(ready("")).status_code == 503


def searched(
    folder: Path,
    suite: Suite,
    deadline: Deadline,
    wrap: Callable[[CorpusStore], CorpusStore] = lambda store: store,
    **more: Any,
) -> RetrieveResponse:
    """What the pipeline finds with the real services, `deadline`, a wrapped store and `more` asked
    for."""

    async def main() -> RetrieveResponse:
        settings = Settings(embed_url=suite.url("embed"), rerank_url=suite.url("rerank"))
        embed = ServiceClient("embed", settings.url("embed"), settings=settings)
        rerank = ServiceClient("rerank", settings.url("rerank"), settings=settings)
        catalog = Catalog.open(folder / "corpora")
        try:
            shelves = Shelves({"shelf": wrap(catalog.get("shelf"))}, EVERYTHING, ExactArm())
            staff = Staff(Librarian(embed), Curator(rerank), Tokenizers(settings.models_dir))
            request = RetrieveRequest(query=QUERY, corpora=["shelf"], **more)
            return await pipeline.retrieve(request, shelves, staff, deadline)
        finally:
            catalog.close()
            await embed.close()
            await rerank.close()

    return asyncio.run(main())


def test_with_no_time_left_for_others_the_words_are_answered(shelf: Path, suite: Suite) -> None:
    found = searched(shelf, suite, Deadline.after_ms(0))
    assert found.degraded == ["dense", "curate"]
    assert found.hits[0].document_id == "moon"


class Racing:
    """A store in which the first chunk that is fetched has been deleted a moment before."""

    def __init__(self, store: CorpusStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        return self._store.fetch(keys[1:])


def test_a_chunk_deleted_in_the_middle_of_a_search_is_dropped_and_named(
    shelf: Path, suite: Suite
) -> None:
    whole = searched(shelf, suite, Deadline(float("inf")))
    found = searched(shelf, suite, Deadline(float("inf")), Racing)
    assert [drop.reason for drop in found.dropped] == ["deleted"]
    assert found.degraded == []
    assert {hit.id for hit in found.hits} < {hit.id for hit in whole.hits}
    assert len(found.hits) == len(whole.hits) - 1


class Long:
    """A store whose documents are too long to be widened to, and that counts what is fetched."""

    def __init__(self, store: CorpusStore) -> None:
        self._store = store
        self.fetched: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        self.fetched += keys
        return self._store.fetch(keys)

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        return {key: Extent(str(key), 0, MOST_CHARACTERS + 1) for key in keys[1:]}


def test_a_hit_that_is_too_long_stays_narrow_and_that_is_told(shelf: Path, suite: Suite) -> None:
    deadline = Deadline(float("inf"))
    plain = searched(shelf, suite, deadline, top_k=3)
    found = searched(shelf, suite, deadline, Long, top_k=3, neighbors="document")
    [skipped] = found.skipped
    assert (skipped.stage, skipped.reason.split()[0]) == ("neighbors", "2")
    assert "2,000,000 characters" in skipped.reason
    assert [hit.text for hit in found.hits] == [hit.text for hit in plain.hits]
    assert searched(shelf, suite, deadline, top_k=3, neighbors="document").skipped == []


def test_dates_are_read_without_texts(shelf: Path, suite: Suite) -> None:
    stores: list[Long] = []

    def counted(store: CorpusStore) -> CorpusStore:
        stores.append(Long(store))
        wrapped: Any = stores[0]
        return wrapped  # type: ignore[no-any-return]

    recency = {"half_life_days": 30, "weight": 1}
    found = searched(shelf, suite, Deadline(float("inf")), counted, recency=recency, explain=True)
    assert found.hits[0].explain is not None
    assert found.hits[0].explain.recency is not None
    assert len(stores[0].fetched) == len(set(stores[0].fetched))
