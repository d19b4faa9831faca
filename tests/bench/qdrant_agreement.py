"""How far the two stores agree: top 10 and nDCG@10 of each on a test collection.

    python -m tests.bench.qdrant_agreement COLLECTION MODEL [--queries 100] [--vectors FILE.npy]

COLLECTION is a folder in BEIR layout, MODEL a folder of the model store. A document is one chunk.
Qdrant is qdrant-client's mode in memory, which searches vectors one by one: what is compared is
BM25 with an average length that is fixed when a chunk is written, the fusion of both arms, and
everything around them. Two top tens agree as far as they have documents in common. The vectors are
kept in FILE.npy for the next time.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import ir_measures
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.base import CorpusStore, NewChunk, NewDocument
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.engine import Cut, Engine
from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Layout, Link
from shared.cli.collection import Collection, read_collection
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import TextTokenizer

TOP, WINDOW, RRF_K = 10, 50, 60
BATCH = 32
MEASURE = ir_measures.nDCG @ TOP

Floats = NDArray[np.float32]
Hits = list[tuple[int, float]]


def embed(model: Path, texts: Sequence[str]) -> Floats:
    """A unit vector for each text, float32 [n, d]."""
    tokenizer = TextTokenizer(model)
    with tempfile.TemporaryDirectory() as built:
        encoder = Encoder.open(model, Path(built), "int8", 2)
        try:
            order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
            vectors = np.empty((len(texts), encoder.dimension), np.float32)
            for start in track(range(0, len(order), BATCH), "embedding"):
                places = order[start : start + BATCH]
                vectors[places] = encoder.embed(tokenizer.tokenize([texts[one] for one in places]))
            return vectors
        finally:
            encoder.close()


def vectors_of(kept: Path | None, model: Path, texts: Sequence[str]) -> Floats:
    """The same, read from a file that an earlier run left for as many texts, or left in it."""
    if kept is not None and kept.is_file():
        found = cast(Floats, np.load(kept))
        if len(found) == len(texts):
            return found
    made = embed(model, texts)
    if kept is not None:
        np.save(kept, made)
    return made


def documents_of(collection: Collection, vectors: Floats, most: int) -> list[NewDocument]:
    """The documents, one chunk each."""
    return [
        NewDocument(
            id=one.id,
            content_hash=one.id,
            title=one.title or None,
            url=None,
            format="text",
            metadata={},
            text=one.text,
            chunks=[NewChunk(one.text, 0, len(one.text), len(one.text.split()))],
            vectors=vectors[place : place + 1],
        )
        for place, one in enumerate(collection.documents[:most])
    ]


def fused(lists: Sequence[Hits]) -> Hits:
    """By reciprocal rank, equal weights."""
    scores: dict[int, float] = {}
    for hits in lists:
        for rank, (key, _) in enumerate(hits):
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + rank + 1)
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))


def ranked(store: CorpusStore, query: str, vector: Floats) -> dict[str, list[tuple[str, float]]]:
    """The best documents of each arm and of their fusion."""
    words, near = store.bm25(query, WINDOW), store.dense(vector, WINDOW)
    found = {"bm25": words, "dense": near, "fused": fused([words, near])}
    records = store.fetch(sorted({key for hits in found.values() for key, _ in hits}))
    return {
        arm: [(records[key].document_id, score) for key, score in hits[:TOP]]
        for arm, hits in found.items()
    }


def agreement(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> float:
    """How many of the ten the two have in common, 0 to 1."""
    if not one and not other:
        return 1.0
    common = {name for name, _ in one} & {name for name, _ in other}
    return len(common) / max(len(one), len(other))


def ndcg(collection: Collection, runs: Mapping[str, list[tuple[str, float]]]) -> float:
    """The mean over the queries."""
    run = {
        query: {name: float(TOP - place) for place, (name, _) in enumerate(found)}
        for query, found in runs.items()
    }
    return float(ir_measures.calc_aggregate([MEASURE], collection.qrels, run)[MEASURE])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("collection", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--most", type=int, default=100_000, help="documents")
    parser.add_argument("--writes", type=int, default=64, help="documents in a write")
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--vectors", type=Path, help="file to keep the vectors in")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="qdrant_client")
    collection = read_collection(arguments.collection)
    asked = list(collection.queries.items())
    queries = asked[: arguments.queries]
    kept = collection.documents[: arguments.most]
    texts = [f"{one.title}\n{one.text}" if one.title else one.text for one in kept]
    texts += [text for _, text in asked]
    vectors = vectors_of(arguments.vectors, arguments.model, texts)
    documents = documents_of(collection, vectors, arguments.most)
    stamp = ModelStamp(arguments.model.name, "bench", vectors.shape[1])
    cut = Cut(CorpusSpec("bench"), stamp, "whole")
    found: dict[str, dict[str, dict[str, list[tuple[str, float]]]]] = {}
    off: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        database = CatalogueDatabase.open("", Path(folder))
        link = Link(QdrantClient(":memory:"), Layout(), in_process=True)
        engines: dict[str, Engine] = {
            "local": LocalEngine.at(Path(folder) / "corpora"),
            "qdrant": QdrantEngine(database, link),
        }
        stores = {name: engine.create(cut) for name, engine in engines.items()}
        for name, store in stores.items():
            begun = time.monotonic()
            for start in track(range(0, len(documents), arguments.writes), f"writing to {name}"):
                store.write(documents[start : start + arguments.writes])
            print(f"{name}: {len(documents) / (time.monotonic() - begun):.0f} documents/s")
        for place, (query, text) in enumerate(track(queries, "searching")):
            vector = vectors[len(documents) + place]
            for name, store in stores.items():
                for arm, hits in ranked(store, text, vector).items():
                    found.setdefault(arm, {}).setdefault(name, {})[query] = hits
            exact = dict(found["bm25"]["local"][query])
            off += [
                abs(score / exact[one] - 1)
                for one, score in found["bm25"]["qdrant"][query]
                if one in exact
            ]
        for store in stores.values():
            store.close()
        for engine in engines.values():
            engine.close()
        database.close()
    table = Table("arm", "agreement", "queries ≥ 0.9", "same top 10", "nDCG local", "nDCG qdrant")
    for arm, by_store in found.items():
        common = [
            agreement(by_store["local"][query], by_store["qdrant"][query]) for query, _ in queries
        ]
        table.add_row(
            arm,
            f"{np.mean(common):.4f}",
            f"{np.mean(np.array(common) >= 0.9):.3f}",
            f"{np.mean(np.array(common) == 1):.3f}",
            *(f"{ndcg(collection, by_store[name]):.4f}" for name in ("local", "qdrant")),
        )
    Console().print(table)
    print(
        f"bm25 scores of common hits differ by {100 * np.mean(off):.2f} % on the mean, "
        f"{100 * np.percentile(off, 95):.2f} % at the 95th percentile, {100 * max(off):.2f} % most"
    )


if __name__ == "__main__":
    main()
