"""The desk when what it depends on is gone, hangs or answers rubbish; and who may use it."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from services.retrieve.app import build
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import TokenCounter, title_line
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.protocol import RetrieveRequest, RetrieveResponse
from services.retrieve.search import pipeline
from services.retrieve.search.curator import Curator
from services.retrieve.stores.base import ChunkRecord, CorpusStore
from shared.auth import hash_key
from shared.client import ServiceClient
from shared.context import Deadline
from shared.settings import Settings
from tests.suite import Suite, free_port, serving

Result = TypeVar("Result")

TEXTS = {
    "moon": "The Moon is 384,400 kilometres away from Earth.",
    "tides": "Tides are raised by the pull of the Moon and of the Sun.",
    "bread": "A sourdough starter is flour and water, fed daily.",
    "bees": "Worker bees dance to tell the hive where flowers are.",
    "chess": "In castling the king moves two squares towards a rook.",
}
MODEL = "all-MiniLM-L6-v2"
QUERY = "How far away is the Moon?"


@asynccontextmanager
async def desk(
    folder: Path, embed: str = "", rerank: str = "", **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a desk over `folder`; a service without a URL is one that is not there."""
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = Settings(
        data_dir=folder, embed_url=embed or nobody, rerank_url=rerank or nobody, **more
    )
    async with (
        serving(await build(settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def shelf(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose corpus `shelf` was made with the real embed."""
    folder = tmp_path_factory.mktemp("shelf")

    async def fill() -> None:
        async with desk(folder, embed=suite.url("embed")) as client:
            for corpus in ("shelf", "secret"):
                (await client.put(f"/corpora/{corpus}")).raise_for_status()
                documents = [{"id": key, "text": text} for key, text in TEXTS.items()]
                body = {"documents": documents}
                (await client.post(f"/corpora/{corpus}/documents", json=body)).raise_for_status()

    asyncio.run(fill())
    return folder


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


def peer(info: dict[str, Any], reply: Callable[[Request], Awaitable[Response]]) -> FastAPI:
    """A service that is well at /info and answers every POST by `reply`."""
    app = FastAPI()

    @app.get("/info")
    async def tell() -> dict[str, Any]:
        return info

    app.add_api_route("/{path:path}", reply, methods=["POST"])
    return app


def fixed(content: bytes, status: int = 200) -> Callable[[Request], Awaitable[Response]]:
    async def reply(_: Request) -> Response:
        return Response(content, status)

    return reply


async def hang(request: Request) -> Response:
    """Give no answer for as long as the caller waits."""
    while not await request.is_disconnected():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)
    return Response()


def embedding(*numbers: float) -> bytes:
    data = base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()
    return json.dumps({"data": [{"embedding": data, "index": 0}]}).encode()


def with_peer(app: FastAPI, work: Callable[[str], Awaitable[Result]]) -> Result:
    """Run `work` with the URL of `app`."""

    async def main() -> Result:
        async with serving(app) as url:
            return await work(url)

    return asyncio.run(main())


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
    shelf: Path, suite: Suite, reply: Callable[[Request], Awaitable[Response]]
) -> None:
    info = httpx.get(f"{suite.url('embed')}/info").json()

    async def search(url: str) -> httpx.Response:
        async with desk(shelf, embed=url) as client:
            return await client.post(
                "/retrieve",
                json={"query": QUERY, "corpora": ["shelf"], "curate": False},
                headers={"x-deadline-ms": "5000"},
            )

    answer = with_peer(peer(info, reply), search)
    assert ids(answer)[0] == "moon"
    assert answer.json()["degraded"] == ["dense"]


@pytest.mark.parametrize("reply", RUBBISH_SCORES.values(), ids=RUBBISH_SCORES.keys())
def test_a_rerank_that_answers_rubbish_counts_as_gone(
    shelf: Path, reply: Callable[[Request], Awaitable[Response]]
) -> None:
    async def search(url: str) -> httpx.Response:
        async with desk(shelf, rerank=url) as client:
            return await client.post(
                "/retrieve",
                json={"query": QUERY, "corpora": ["shelf"], "arms": ["bm25"]},
                headers={"x-deadline-ms": "5000"},
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


def test_only_those_who_may_read_a_corpus_are_told_what_is_wrong_with_it(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    """/ready needs no key: with keys it counts, and names neither a corpus nor a file."""
    folder = tmp_path / "data"
    shutil.copytree(shelf, folder)
    file = folder / "corpora" / "secret" / "corpus.db"
    file.write_bytes(b"rubbish" * 1000)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "all", "sha256": hash_key("k")}]}))
    info = {**httpx.get(f"{suite.url('embed')}/info").json(), "revision": "another"}

    async def ready(embed: str, **more: Any) -> dict[str, Any]:
        async with desk(folder, embed=embed, **more) as client:
            answer = await client.get("/ready")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    app = peer(info, fixed(b"{}"))
    told = with_peer(app, lambda embed: ready(embed))
    assert set(told["faults"]) == {"secret", "shelf"}
    assert str(file) in told["faults"]["secret"]
    locked = with_peer(app, lambda embed: ready(embed, keys_file=keys))
    assert (locked["corpora"], locked["damaged"], locked["of_another_model"]) == (1, 1, 1)
    assert locked["faults"] == {}
    for word in ("secret", "shelf", str(folder)):
        assert word not in json.dumps(locked)


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
) -> RetrieveResponse:
    """What the pipeline finds with the real services, `deadline` and a wrapped store."""

    async def main() -> RetrieveResponse:
        settings = Settings(embed_url=suite.url("embed"), rerank_url=suite.url("rerank"))
        embed = ServiceClient("embed", settings.url("embed"), settings=settings)
        rerank = ServiceClient("rerank", settings.url("rerank"), settings=settings)
        catalog = Catalog.open(folder / "corpora")
        try:
            return await pipeline.retrieve(
                RetrieveRequest(query=QUERY, corpora=["shelf"]),
                {"shelf": wrap(catalog.get("shelf"))},
                Librarian(embed),
                Curator(rerank),
                deadline,
            )
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


def test_a_key_opens_its_own_corpora_and_a_reader_changes_nothing(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    entries = [
        {"name": "all", "sha256": hash_key("k-admin"), "role": "admin"},
        {"name": "one", "sha256": hash_key("k-one"), "role": "reader", "corpora": ["shelf"]},
    ]
    keys.write_text(json.dumps({"keys": entries}))

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as client:

            async def call(key: str, method: str, path: str, body: Any = None) -> httpx.Response:
                headers = {"authorization": f"Bearer {key}"}
                return await client.request(method, path, json=body, headers=headers)

            question = {"query": QUERY, "corpora": ["shelf"], "curate": False}
            assert (await call("wrong", "POST", "/retrieve", question)).status_code == 401
            assert (await call("k-one", "POST", "/retrieve", question)).status_code == 200
            for corpora in (["secret"], ["shelf", "secret"], ["not-there"]):
                body = {**question, "corpora": corpora}
                assert (await call("k-one", "POST", "/retrieve", body)).status_code == 403
            unknown = await call("k-admin", "POST", "/retrieve", {**question, "corpora": ["x"]})
            assert unknown.status_code == 404
            assert "secret" in unknown.json()["error"]["message"]

            listed = (await call("k-one", "GET", "/corpora")).json()["corpora"]
            assert [corpus["name"] for corpus in listed] == ["shelf"]
            for path in ("", "/documents", "/documents/moon"):
                assert (await call("k-one", "GET", f"/corpora/secret{path}")).status_code == 403
                assert (await call("k-one", "GET", f"/corpora/shelf{path}")).status_code == 200
            document = {"documents": [{"id": "new", "text": "new"}]}
            changes: list[tuple[str, str, Any]] = [
                ("PUT", "/corpora/shelf", {}),
                ("DELETE", "/corpora/shelf", None),
                ("POST", "/corpora/shelf/documents", document),
                ("DELETE", "/corpora/shelf/documents/moon", None),
            ]
            for method, path, change in changes:
                refused = await call("k-one", method, path, change)
                assert refused.status_code == 403
                assert refused.json()["error"]["type"] == "permission_error"

    asyncio.run(main())
