"""A Qdrant that is down, slow, full or not itself: a real server that answers as one would, and the
real client."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Link, connect
from services.retrieve.stores.qdrant.required import RpcError
from services.retrieve.stores.qdrant.store import QdrantStore
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, current, enter
from shared.errors import ApiError
from shared.settings import Settings
from tests.corpora import document, vector_of
from tests.qdrant import Sick, cut, memory_link

KEY = "a-key-that-no-one-may-see"


@pytest.fixture
def sick() -> Iterator[Sick]:
    server = Sick()
    yield server
    server.close()


def settings(url: str, timeout_s: int = 2) -> Settings:
    return Settings(qdrant_url=url, qdrant_api_key=KEY, qdrant_timeout_s=timeout_s)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open("", tmp_path)
    yield database
    database.close()


@pytest.fixture
def corpus(database: CatalogueDatabase) -> Callable[[Link], QdrantStore]:
    """Open, over a link, a corpus that was written while all was well."""
    engine = QdrantEngine(database, memory_link())
    engine.create(cut()).write([document("a", ["word"])])

    def opened(link: Link) -> QdrantStore:
        return QdrantEngine(database, link).open("c")

    return opened


def uses(store: QdrantStore) -> dict[str, Callable[[], object]]:
    """What needs Qdrant."""
    return {
        "words": lambda: store.bm25("word", 5),
        "vectors": lambda: store.dense(vector_of("word"), 5),
        "scores": lambda: store.bm25_scores("word", store.keys_of("a")),
        "fetch": lambda: store.fetch(store.keys_of("a")),
        "write": lambda: store.write([document("a", ["new"]), document("b", ["word"])]),
        "bodies": lambda: list(store.bodies()),
        "whole": lambda: store.whole(["a"]),
    }


def failures(store: QdrantStore) -> set[tuple[int, str]]:
    """The errors of all uses; none may change anything, show the key, or come without a way out."""
    found = set()
    for name, use in uses(store).items():
        with pytest.raises(ApiError) as caught:
            use()
        error = caught.value
        assert KEY not in error.message, name
        if error.status == 503:
            assert int(error.headers["Retry-After"]) >= 1
        found.add((error.status, error.code))
    assert (store.info.documents, store.info.writes) == (1, 1)
    (known,) = store.known(["a", "b"])
    assert known == "a"
    stored = store.document("a")
    assert stored is not None
    assert stored.text == "word"
    assert store.delete(["nobody"]) == []
    return found


def test_a_qdrant_that_is_down_is_unavailable(
    corpus: Callable[[Link], QdrantStore], sick: Sick
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = corpus(connect(settings(f"http://127.0.0.1:{free.getsockname()[1]}")))
        assert failures(store) == {(503, "store_unavailable")}


def test_a_qdrant_that_is_down_over_grpc_is_unavailable(
    corpus: Callable[[Link], QdrantStore],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        chosen = settings(f"http://127.0.0.1:{port}").model_copy(
            update={"qdrant_grpc": True, "qdrant_grpc_port": port}
        )
        store = corpus(connect(chosen))
        with pytest.raises(ApiError) as caught:
            store.bm25("word", 5)
    assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
    assert isinstance(caught.value.__cause__, RpcError)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", (503, "store_unavailable")),
        (200, b"<html>welcome</html>", (503, "store_unavailable")),
        (200, b'{"result": 7}', (503, "store_unavailable")),
        (200, b'{"result": {"points": [{"id": "x", "score": "y"}]}}', (503, "store_unavailable")),
        (200, b"[" * 100_000, (503, "store_unavailable")),
        (400, b'{"status": {"error": "Wrong input"}}', (503, "store_unavailable")),
        (401, b"Must provide an API key", (503, "store_unavailable")),
        (404, b'{"status": {"error": "Not found: Collection"}}', (500, "corpus_damaged")),
        (500, b'{"status": {"error": "Service internal error"}}', (503, "store_unavailable")),
        (500, b'{"status": {"error": "No space left on device"}}', (507, "storage_full")),
        (503, b"", (503, "store_unavailable")),
        (302, b"", (503, "store_unavailable")),
    ],
)
def test_rubbish_and_refusals_are_told_as_what_they_are(
    corpus: Callable[[Link], QdrantStore],
    sick: Sick,
    status: int,
    body: bytes,
    expected: tuple[int, str],
) -> None:
    sick.status, sick.body = status, body
    assert failures(corpus(connect(settings(sick.url)))) == {expected}
    assert {key for _, key in sick.asked} == {KEY}


@pytest.mark.parametrize("wait", ["9", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_an_overloaded_qdrant_is_unavailable(
    corpus: Callable[[Link], QdrantStore], sick: Sick, wait: str
) -> None:
    sick.status, sick.headers = 429, {"Retry-After": wait}
    assert failures(corpus(connect(settings(sick.url)))) == {(503, "store_unavailable")}


def test_a_slow_qdrant_is_not_waited_for_beyond_the_setting_or_the_deadline(
    corpus: Callable[[Link], QdrantStore], sick: Sick
) -> None:
    sick.body = json.dumps({"result": [], "status": "ok", "time": 0}).encode()
    store = corpus(connect(settings(sick.url, timeout_s=1)))
    sick.wait_s = 30.0
    asked = time.monotonic()
    with pytest.raises(ApiError) as caught:
        store.bm25("word", 5)
    assert caught.value.code == "store_unavailable"
    sick.wait_s = 0.0
    patient = corpus(connect(settings(sick.url, timeout_s=20)))
    sick.wait_s = 30.0
    before = current()
    enter(RequestContext("r", Deadline.after_ms(300), NOBODY))
    try:
        with pytest.raises(ApiError) as caught:
            patient.bm25("word", 5)
        assert caught.value.code == "store_unavailable"
        enter(RequestContext("r", Deadline.after_ms(0), NOBODY))
        with pytest.raises(ApiError) as caught:
            patient.bm25("word", 5)
        assert caught.value.code == "deadline_exceeded"
    finally:
        enter(before)
    assert time.monotonic() - asked < 25


def test_an_outage_is_over_when_it_is_over(
    database: CatalogueDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = memory_link()
    engine = QdrantEngine(database, link)
    store = engine.create(cut())
    store.write([document("a", ["word"])])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = connect(settings(f"http://127.0.0.1:{free.getsockname()[1]}")).client
        with monkeypatch.context() as patch:
            patch.setattr(store._points, "_client", gone)
            assert failures(store) == {(503, "store_unavailable")}
    store.write([document("b", ["word"])])
    assert len(store.bm25("word", 5)) == 2
    assert list(store.verify()) == []


def test_no_corpus_can_be_made_while_qdrant_is_down(
    database: CatalogueDatabase, sick: Sick
) -> None:
    sick.status = 500
    engine = QdrantEngine(database, connect(settings(sick.url)))
    with pytest.raises(ApiError) as caught:
        engine.create(cut())
    assert caught.value.code == "store_unavailable"
    assert engine.names() == []
