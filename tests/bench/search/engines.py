"""The search libraries that the desk is measured beside, and itself: each built, opened and asked.

Each is set up as its documentation has it for English, with stemming and stop words where it has
any, and searches 100 deep in each arm where that can be said. A library is only imported in its own
environment (tests/bench/search/worker.py).
"""

import json
import zlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

DEPTH = 100
BATCH = 1000
K1, B = 1.2, 0.75
HYBRID, DENSE, LEXICAL = "hybrid", "dense", "lexical"


class Engine(Protocol):
    """A library. Rows are those of the corpus's files."""

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        """Put all into its place."""

    def open(self, corpus: Path) -> None:
        """Get ready to search what `build` has put there."""

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        """The rows that are found, best first. vector: unit, float32 [d]."""


def body(chunk: dict[str, Any]) -> str:
    """What the words of a chunk are: its title and its text."""
    return f"{chunk['title']}\n{chunk['text']}" if chunk["title"] else str(chunk["text"])


class Bm25s:
    """bm25s with PyStemmer: words alone. Its formula is Lucene's."""

    def __init__(self, place: Path) -> None:
        import Stemmer

        self._place = place
        self._stemmer = Stemmer.Stemmer("english")

    def _terms(self, texts: list[str]) -> Any:
        import bm25s

        return bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        import bm25s

        index = bm25s.BM25(k1=K1, b=B)
        index.index(self._terms([body(chunk) for chunk in chunks]), show_progress=False)
        index.save(self._place)

    def open(self, corpus: Path) -> None:
        import bm25s

        self._index = bm25s.BM25.load(self._place)

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        found, scores = self._index.retrieve(self._terms([text]), k=limit, show_progress=False)
        return [int(row) for row, score in zip(found[0], scores[0], strict=True) if score > 0]


class Chroma:
    """Chroma, persistent, its HNSW as it comes: vectors alone."""

    def __init__(self, place: Path) -> None:
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(str(place), settings)

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        index = self._client.create_collection(
            "bench", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        for at in range(0, len(chunks), BATCH):
            rows = range(at, min(at + BATCH, len(chunks)))
            index.add(
                ids=[str(row) for row in rows],
                embeddings=vectors[at : at + BATCH],
                documents=[body(chunks[row]) for row in rows],
            )

    def open(self, corpus: Path) -> None:
        self._index = self._client.get_collection("bench", embedding_function=None)

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        found = self._index.query(
            query_embeddings=[vector], n_results=limit, include=["documents", "distances"]
        )
        return [int(row) for row in found["ids"][0]]


class LanceDb:
    """LanceDB: its full-text index, vectors without an index (as it comes) and its RRF."""

    indexed = False

    def __init__(self, place: Path) -> None:
        import lancedb

        self._db = lancedb.connect(str(place))

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(vectors).ravel())
        columns = {
            "row": pa.array(range(len(chunks)), pa.int64()),
            "body": pa.array([body(chunk) for chunk in chunks]),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
        table = self._db.create_table("bench", pa.table(columns))
        table.create_fts_index("body", stem=True, remove_stop_words=True, language="English")
        if self.indexed:
            table.create_index(metric="cosine", index_type="IVF_HNSW_SQ")

    def open(self, corpus: Path) -> None:
        from lancedb.rerankers import RRFReranker

        self._table = self._db.open_table("bench")
        self._fusion = RRFReranker()

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        wanted = ["row", "body"]
        if mode == HYBRID:
            both = self._table.search(query_type="hybrid").vector(vector).text(text)
            both = both.distance_type("cosine").rerank(self._fusion)
            found = both.limit(DEPTH).select(wanted).to_arrow()
        elif mode == DENSE:
            dense = self._table.search(vector, query_type="vector").distance_type("cosine")
            found = dense.limit(limit).select([*wanted, "_distance"]).to_arrow()
        else:
            words = self._table.search(text, query_type="fts")
            found = words.limit(limit).select([*wanted, "_score"]).to_arrow()
        rows: list[int] = found["row"].to_pylist()[:limit]
        return rows


class LanceDbIndexed(LanceDb):
    """The same with the vector index that its documentation advises for recall."""

    indexed = True


class Txtai:
    """txtai, hybrid: faiss and its own BM25, as they come; given vectors, content kept."""

    def __init__(self, place: Path) -> None:
        from txtai import Embeddings

        self._place = place
        self._given: dict[str, Any] = {}

        def transform(texts: list[str]) -> Any:
            return np.stack([self._given[text] for text in texts])

        settings = {"method": "external", "transform": transform, "hybrid": True, "content": True}
        self._index = Embeddings(settings)
        self._transform = transform

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        # It hands each text to `transform`; equal texts have nearly equal vectors.
        bodies = [body(chunk) for chunk in chunks]
        self._given = dict(zip(bodies, vectors, strict=True))
        self._index.index((row, text, None) for row, text in enumerate(bodies))
        del self._index.config["transform"]  # a function can't be saved
        self._index.save(str(self._place / "index"))

    def open(self, corpus: Path) -> None:
        self._index.load(str(self._place / "index"))
        self._index.model.transform = self._transform

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        self._given = {text: vector}
        weights = {HYBRID: 0.5, DENSE: 1.0, LEXICAL: 0.0}[mode]
        return [int(one["id"]) for one in self._index.search(text, limit, weights)]


class QdrantLocal:
    """qdrant-client's local mode: dense, and BM25 as a sparse vector, with its RRF.

    The weights of terms are BM25's without IDF, which the local mode multiplies in itself.
    """

    def __init__(self, place: Path) -> None:
        import Stemmer
        from qdrant_client import QdrantClient

        self._client = QdrantClient(path=str(place))
        self._stemmer = Stemmer.Stemmer("english")

    def _terms(self, texts: list[str]) -> list[Counter[int]]:
        import bm25s

        words = bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return [Counter(zlib.crc32(word.encode()) for word in found) for found in words]

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        from qdrant_client import models

        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        self._client.create_collection(
            "bench",
            vectors_config={
                "dense": models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
            },
            sparse_vectors_config={"words": sparse},
        )
        terms = self._terms([body(chunk) for chunk in chunks])
        mean = sum(count.total() for count in terms) / len(terms)

        def weights(count: Counter[int]) -> list[float]:
            length = K1 * (1 - B + B * count.total() / mean)
            return [times * (K1 + 1) / (times + length) for times in count.values()]

        points = (
            models.PointStruct(
                id=row,
                payload={"body": body(chunk)},
                vector={
                    "dense": vectors[row].tolist(),
                    "words": models.SparseVector(indices=list(count), values=weights(count)),
                },
            )
            for row, (chunk, count) in enumerate(zip(chunks, terms, strict=True))
        )
        while batch := list(islice(points, BATCH)):
            self._client.upsert("bench", batch)

    def open(self, corpus: Path) -> None:
        pass  # the client has read all of it when it was made

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        from qdrant_client import models

        [count] = self._terms([text])
        words = models.SparseVector(indices=list(count), values=[1.0] * len(count))
        dense = vector.tolist()
        if mode == HYBRID:
            found = self._client.query_points(
                "bench",
                prefetch=[
                    models.Prefetch(query=dense, using="dense", limit=DEPTH),
                    models.Prefetch(query=words, using="words", limit=DEPTH),
                ],
                query=models.FusionQuery(fusion=models.Fusion.RRF),
                limit=limit,
            )
        elif mode == DENSE:
            found = self._client.query_points("bench", query=dense, using="dense", limit=limit)
        else:
            found = self._client.query_points("bench", query=words, using="words", limit=limit)
        return [int(point.id) for point in found.points]


class Refdesk:
    """refdesk's own search in this process: all of `POST /retrieve` but for HTTP, and with the
    query's vector given; an arm alone is its store's, with the texts of what it finds. Written by
    tests/bench/search/desk.py, not by `build`.
    """

    def __init__(self, place: Path) -> None:
        self._place = place

    def build(self, chunks: list[dict[str, Any]], vectors: Any) -> None:
        raise NotImplementedError

    def open(self, corpus: Path) -> None:
        import asyncio

        from services.retrieve.corpus.catalog import Catalog
        from services.retrieve.corpus.embedding import Embedded, Librarian
        from services.retrieve.corpus.tokenizers import Tokenizers
        from services.retrieve.search.candidates import Shelves
        from services.retrieve.search.curator import Curator
        from services.retrieve.search.exact_bm25 import ExactArm
        from services.retrieve.search.pipeline import Staff
        from services.retrieve.stores.base import EVERYTHING
        from shared.client import ServiceClient
        from shared.settings import Settings

        given: dict[str, Any] = {}

        class Known(Librarian):
            """Has the vectors already."""

            async def query_vectors(
                self, queries: Any, passage: Any, corpus: Any, *, sparse: bool = False
            ) -> Embedded:
                return Embedded(np.stack([given[query] for query in queries]))

        settings = Settings(data_dir=self._place)
        catalog = Catalog.open(settings.corpora_dir)
        nobody = ServiceClient("nobody", "http://127.0.0.1:9", settings=settings)  # never asked
        self._given = given
        self._store = catalog.get("bench")
        self._shelves = Shelves({"bench": self._store}, EVERYTHING, ExactArm())
        self._staff = Staff(Known(nobody), Curator(nobody), Tokenizers(settings.models_dir))
        self._runner = asyncio.Runner()
        self._rows: dict[str, int] = {}
        document, number = "", 0
        for row, name in enumerate(documents(corpus)):
            number = number + 1 if name == document else 0
            document = name
            self._rows[f"{name}#{number}"] = row

    def search(self, mode: str, text: str, vector: Any, limit: int) -> list[int]:
        from services.retrieve.protocol import RetrieveRequest
        from services.retrieve.search.pipeline import retrieve
        from shared.context import Deadline

        if mode != HYBRID:
            found = (
                self._store.dense(vector, limit) if mode == DENSE else self._store.bm25(text, limit)
            )
            records = self._store.fetch([key for key, _ in found]).values()
            return [self._rows[record.id] for record in records]
        self._given[text] = vector
        request = RetrieveRequest(query=text, corpora=["bench"], top_k=limit, curate=False)
        deadline = Deadline.after_ms(60_000)
        answer = self._runner.run(retrieve(request, self._shelves, self._staff, deadline))
        return [self._rows[hit.id] for hit in answer.hits]


ENGINES: dict[str, type[Any]] = {
    "refdesk": Refdesk,
    "lancedb": LanceDb,
    "lancedb-indexed": LanceDbIndexed,
    "txtai": Txtai,
    "qdrant-local": QdrantLocal,
    "chroma": Chroma,
    "bm25s": Bm25s,
}


def documents(corpus: Path) -> list[str]:
    """The document of each row."""
    with (corpus / "chunks.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["document"] for line in lines]
