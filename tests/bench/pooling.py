"""Pooled token vectors beside all of them: bytes of a passage, and nDCG@10 over whole windows.

    python -m tests.bench.pooling DIR:SPLIT... [--queries 120]

DIR is a collection in BEIR layout, SPLIT the queries to ask (`train`, `dev`). retrieve must run
where the settings say, with the collection's documents in the corpus that `refdesk eval DIR --split
SPLIT --limit 1 --url URL` makes: the windows, and what the other arms think of their passages, are
its own. The passages' token vectors are made here, and kept in each of the ways as int8. A document
stands where its best passage does; the difference to all vectors has its standard error.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.rerank.models import pooling
from services.rerank.models.late_interaction import max_sim
from services.rerank.models.token_cache import TokenVectors
from services.retrieve.search.curate import z_scores
from shared.cli.collection import Collection, corpus_name, read_collection
from shared.cli.http import Api
from shared.encoder.encoder import Encoder
from shared.encoder.session import Vectors
from shared.modelstore.store import ModelStore
from shared.settings import Settings, load_settings
from tests.bench.peers.contenders import MODEL

WINDOW = 50
BATCH = 16
MEASURE = nDCG @ 10
CONSOLE = Console(width=130)


@dataclass(frozen=True)
class Window:
    """The candidates of a query: text, document, and the sum of the other arms' z-scores of each,
    float64 [n].
    """

    name: str
    query: str
    texts: list[str]
    documents: list[str]
    arms: NDArray[np.float64]


def windows(retrieve: Api, collection: Collection, most: int) -> Iterator[Window]:
    """The windows of some of the collection's queries, always the same ones."""
    names = sorted(collection.queries)
    for place in np.random.default_rng(0).permutation(len(names))[:most]:
        query = collection.queries[names[place]]
        body = {
            "query": query,
            "corpora": [corpus_name(collection)],
            "top_k": WINDOW,
            "rerank_window": WINDOW,
            "explain": True,
        }
        hits = retrieve.post("/retrieve", body, "hits")["hits"]
        hits = [hit for hit in hits if hit["explain"]["curation"]]
        z = [hit["explain"]["curation"]["z"] for hit in hits]
        yield Window(
            names[place],
            query,
            [f"{hit['title']}\n{hit['text']}" if hit["title"] else hit["text"] for hit in hits],
            [hit["document_id"] for hit in hits],
            np.array([one["bm25"] + one["dense"] for one in z], np.float64),
        )


def _pooled(least: int) -> Callable[[Vectors], Vectors]:
    def pool(vectors: Vectors) -> Vectors:
        pooling.LEAST = least  # what the service has as a constant
        return pooling.pool(vectors)

    return pool


WAYS: dict[str, Callable[[Vectors], Vectors]] = {
    "all": lambda vectors: vectors,
    f"a third, {pooling.LEAST} at least (shipped)": _pooled(pooling.LEAST),
    "a third": _pooled(1),
}


def ndcg(collection: Collection, run: dict[str, dict[str, float]]) -> NDArray[np.float64]:
    """Of each query of the run, in the order of their ids, float64 [q]."""
    qrels = {name: collection.qrels[name] for name in run}
    found = {one.query_id: one.value for one in ir_measures.iter_calc([MEASURE], qrels, run)}
    return np.array([found.get(name, 0.0) for name in sorted(run)])


def ranked(window: Window, scores: NDArray[np.float64]) -> dict[str, float]:
    """The documents of a window, each with the score of its best passage."""
    best: dict[str, float] = {}
    for document, score in zip(window.documents, scores.tolist(), strict=True):
        best[document] = max(score, best.get(document, score))
    return best


def measure(encoder: Encoder, collection: Collection, asked: list[Window]) -> Table:
    """A row for each way."""
    texts = sorted({text for window in asked for text in window.texts}, key=len)
    kept: dict[str, dict[str, TokenVectors]] = {name: {} for name in WAYS}
    for first in track(range(0, len(texts), BATCH), collection.name, console=CONSOLE):
        batch = texts[first : first + BATCH]
        tokenized = encoder.tokenizer.tokenize(batch)
        for text, read, own in zip(batch, tokenized, encoder.token_vectors(tokenized), strict=True):
            for name, way in WAYS.items():
                kept[name][text] = TokenVectors.of(way(own), len(read), read.cut)
    queries = encoder.token_vectors(encoder.tokenizer.tokenize([one.query for one in asked]))
    table = Table("vectors kept", "KB a passage", "MaxSim nDCG@10", "blend nDCG@10")
    table.title = f"{collection.name}: {len(asked)} queries, {len(texts)} passages"
    baseline: list[NDArray[np.float64]] = []
    for name in WAYS:
        alone: dict[str, dict[str, float]] = {}
        blended: dict[str, dict[str, float]] = {}
        for window, query in zip(asked, queries, strict=True):
            raw = max_sim(query, [kept[name][text] for text in window.texts]).astype(np.float64)
            alone[window.name] = ranked(window, raw)
            blended[window.name] = ranked(window, (z_scores(raw.tolist()) + window.arms) / 3)
        found = [ndcg(collection, alone), ndcg(collection, blended)]
        baseline = baseline or found
        size = np.mean([one.nbytes for one in kept[name].values()]) / 1024
        table.add_row(name, f"{size:.1f}", *map(_figure, found, baseline))
    return table


def _figure(found: NDArray[np.float64], baseline: NDArray[np.float64]) -> str:
    gain = found - baseline
    return f"{found.mean():.4f} ({gain.mean():+.4f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.4f})"


def main() -> None:
    """Ask for the windows, measure, and print a table for each collection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("collections", nargs="+", metavar="DIR:SPLIT")
    parser.add_argument("--queries", type=int, default=120, help="of each collection, at most")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    settings = load_settings()
    model = ModelStore(Settings().models_dir).require(MODEL).path
    encoder = Encoder.open(model, settings.built_dir, "int8", options.threads)
    with Api("retrieve", settings, patience_s=300) as retrieve:
        for place in options.collections:
            folder, _, split = place.rpartition(":")
            collection = read_collection(Path(folder), split)
            asked = list(windows(retrieve, collection, options.queries))
            CONSOLE.print(measure(encoder, collection, asked))


if __name__ == "__main__":
    main()
