"""Qdrant for tests: qdrant-client's own mode in memory, and a server that is not well."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from qdrant_client import QdrantClient

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Layout, Link
from services.retrieve.stores.qdrant.store import QdrantStore
from tests.corpora import STAMP, vector_of, weighed, words_of


def memory_link() -> Link:
    """A Qdrant of its own, gone with the test."""
    return Link(QdrantClient(":memory:"), Layout(), in_process=True)


def cut(name: str = "c", *, sparse: bool = False) -> Cut:
    """How a generation of a test's corpus is made."""
    return Cut(CorpusSpec(name), STAMP, "semchunk-1", sparse)


@contextmanager
def qdrant_engine(folder: Path, link: Link | None = None, url: str = "") -> Iterator[QdrantEngine]:
    """An engine with its catalogue at `url`, or in a folder."""
    database = CatalogueDatabase.open(url, folder)
    engine = QdrantEngine(database, link or memory_link(), patience_s=2.0)
    try:
        yield engine
    finally:
        database.close()  # the link stays: what is in it would be gone


def replica(engine: QdrantEngine) -> QdrantEngine:
    """As another process has it: over the same catalogue and the same Qdrant."""
    return QdrantEngine(engine._database, engine._link, patience_s=2.0)


@contextmanager
def qdrant_corpus(folder: Path, *, sparse: bool) -> Iterator[QdrantStore]:
    """An empty corpus."""
    with qdrant_engine(folder) as engine:
        yield engine.create(cut(sparse=sparse))


def write(store: QdrantStore, *documents: NewDocument) -> None:
    """Write documents with sparse vectors."""
    store.write([weighed(one) for one in documents])


def texts(store: QdrantStore) -> dict[str, str]:
    """What every arm finds: the texts of all chunks by their ids, the same for each arm."""
    found = []
    for hits in store.lists(1000, words="word", vector=vector_of("word"), sparse=words_of("word")):
        records = store.fetch([key for key, _ in hits]).values()
        assert len(records) == len(hits)
        found.append({record.id: record.text for record in records})
    assert found[0] == found[1] == found[2]
    return found[0]


def points(link: Link) -> int:
    """How many points there are in all collections."""
    client = link.client
    names = [one.name for one in client.get_collections().collections]
    return sum(client.count(name).count for name in names)


class Sick:
    """A server whose every answer is `status` with `body`, after `wait_s`."""

    def __init__(self) -> None:
        self.status, self.body, self.wait_s = 200, b"", 0.0
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        sick = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                sick.asked.append((f"{self.command} {self.path}", self.headers.get("api-key")))
                time.sleep(sick.wait_s)
                self.send_response(sick.status)
                for name, value in sick.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sick.body)))
                self.end_headers()
                self.wfile.write(sick.body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - its names

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        looks = (0.01,)  # seconds between two; its end waits for one
        threading.Thread(target=self._server.serve_forever, args=looks, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
