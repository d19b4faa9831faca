"""The dense arm measured: sizes by methods, against exact search.

    python -m tests.bench.dense REAL.npy QUERIES.npy [--sizes 10000 100000] [--methods desk hnsw]

REAL.npy and QUERIES.npy: unit vectors float32 [n, d] of real texts, as `embed` gives them. Where a
size needs more than there are, it is filled up with mixtures of a real vector and one of its eight
nearest, plus noise of half a vector's length, and brought to length one.

Prints one line of JSON for each size and method: seconds of CPU to build and to open, MiB on disk,
milliseconds of CPU for a search (p50, p95; limit 100), recall@10 and @100 against exact search, and
p50 for a search filtered to one vector in a hundred. CPU time of the searching thread, because it
changes less than elapsed time where other programs run.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_rows import Keys

Search = Callable[[Vector, int, Keys | None], list[int]]

LIMIT = 100
NEAR = 8
# What the desk could have used, as FAISS' factory names it.
OTHERS = {"flat": "Flat", "sq8": "IVF1024,SQ8", "hnsw": "HNSW32"}


def unit(rows: Vector) -> Vector:
    """Rows brought to length one."""
    scaled: Vector = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def enlarged(real: Vector, size: int) -> Vector:
    """`size` vectors: the real ones, then mixtures of them, in random order."""
    random = np.random.default_rng(0)
    dimension = real.shape[1]
    index: Any = faiss.index_factory(dimension, "IVF256,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(real[:20_000])
    index.add(real)
    index.nprobe = 16
    _, near = index.search(real, NEAR + 1)
    rows = np.empty((size, dimension), np.float32)
    rows[: len(real)] = real[:size]
    for start in range(len(real), size, 8192):
        count = min(8192, size - start)
        one = random.integers(0, len(real), count)
        other = near[one, random.integers(1, NEAR + 1, count)]
        share = random.uniform(0.3, 0.7, (count, 1)).astype(np.float32)
        noise = unit(random.standard_normal((count, dimension), np.float32))
        mixed = unit(share * real[one] + (1 - share) * real[other])
        rows[start : start + count] = unit(mixed + 0.5 * noise)
    random.shuffle(rows)
    return rows


def best(rows: Vector, queries: Vector) -> list[NDArray[np.intp]]:
    """The places of the `LIMIT` nearest rows of each query, best first."""
    found = []
    for query in queries:
        scores = rows @ query
        top = np.argpartition(scores, len(scores) - LIMIT)[-LIMIT:]
        found.append(top[np.argsort(-scores[top])])
    return found


def figures(search: Search, rows: Vector, queries: Vector, truth: Any) -> dict[str, float]:
    """Time and recall of a search."""
    spent, filtered, ten, hundred = [], [], 0, 0
    allowed = np.sort(np.random.default_rng(1).choice(len(rows), len(rows) // 100, replace=False))
    for query, wanted in zip(queries, truth, strict=True):
        start = time.thread_time()
        keys = search(query, LIMIT, None)
        spent.append(time.thread_time() - start)
        ten += len(set(keys[:10]) & set(wanted[:10].tolist()))
        hundred += len(set(keys) & set(wanted.tolist()))
        start = time.thread_time()
        search(query, LIMIT, allowed)
        filtered.append(time.thread_time() - start)
    return {
        "p50_ms": round(float(np.median(spent)) * 1000, 2),
        "p95_ms": round(float(np.quantile(spent, 0.95)) * 1000, 2),
        "recall@10": round(ten / 10 / len(queries), 4),
        "recall@100": round(hundred / LIMIT / len(queries), 4),
        "filtered_p50_ms": round(float(np.median(filtered)) * 1000, 2),
    }


def desk(rows: Vector, queries: Vector, truth: Any) -> dict[str, object]:
    """The dense arm as it is, saved and opened again."""
    keys = np.arange(len(rows), dtype=np.int64)
    with tempfile.TemporaryDirectory() as name:
        start = time.process_time()
        index = DenseIndex(rows.shape[1], keys, rows, folder=Path(name))
        index.settle()
        built = time.process_time() - start
        index.close()
        size = sum(file.stat().st_size for file in Path(name).iterdir())
        start = time.process_time()
        index = DenseIndex(rows.shape[1], keys, rows, folder=Path(name))
        opened = time.process_time() - start

    def search(query: Vector, limit: int, allowed: Keys | None) -> list[int]:
        return [key for key, _ in index.search(query, limit, allowed)]

    return {
        "method": index.method,
        "build_s": round(built, 1),
        "open_s": round(opened, 2),
        "disk_mib": round(size / 2**20, 1),
        **figures(search, rows, queries, truth),
    }


def other(form: str, rows: Vector, queries: Vector, truth: Any) -> dict[str, object]:
    """One of FAISS' indexes; approximate ones rescore three candidates for each result."""
    faiss.omp_set_num_threads(1)
    start = time.process_time()
    index: Any = faiss.index_factory(rows.shape[1], form, faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:: max(1, len(rows) // 40_000)])
    index.add(rows)
    built = time.process_time() - start
    parameters: Callable[..., Any] = faiss.SearchParameters
    extra = {}
    if form.startswith("IVF"):
        parameters, extra = faiss.SearchParametersIVF, {"nprobe": 256}
    elif form.startswith("HNSW"):
        parameters, extra = vars(faiss)["SearchParametersHNSW"], {"efSearch": 300}

    def search(query: Vector, limit: int, allowed: Keys | None) -> list[int]:
        chosen = None if allowed is None else faiss.IDSelectorBatch(allowed)
        wanted = limit if form == "Flat" else 3 * limit
        _, keys = index.search(query[None], wanted, params=parameters(sel=chosen, **extra))
        found = np.sort(keys[0][keys[0] >= 0])
        ranked: list[int] = found[np.argsort(-np.vecdot(rows[found], query))][:limit].tolist()
        return ranked

    return {
        "method": f"{form} {extra or ''}".strip(),
        "build_s": round(built, 1),
        **figures(search, rows, queries, truth),
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--methods", nargs="+", default=["desk"], choices=["desk", *OTHERS])
    parser.add_argument("--count", type=int, default=300, help="queries")
    options = parser.parse_args()
    real = unit(np.load(options.real))
    queries = unit(np.load(options.queries))[: options.count]
    for size in options.sizes:
        rows = enlarged(real, size)
        truth = best(rows, queries)
        for name in options.methods:
            measured = (
                desk(rows, queries, truth)
                if name == "desk"
                else other(OTHERS[name], rows, queries, truth)
            )
            sys.stdout.write(json.dumps({"vectors": size, **measured}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
