"""How the desk's latency and memory grow with its corpus: 1,000 chunks to a million.

    python -m tests.bench.search.scale FOLDER DATASETS [--chunks 1000 10000 100000] [--plot FILE]

For each size: the corpus is made (tests/bench/search/corpus.py) and written in a process of its
own, then embed, rerank and retrieve are started over it and asked over HTTP. One request at a time:
without curation, and the same filtered to one of a hundred shelves, in turns, so that both see the
same machine; curated, with the windows' token vectors cached; without curation and with query
vectors that are not cached. Everywhere else embed knows the query's vector already, so that its
part is a cache hit over HTTP. Then 16 clients at once. The client has the same cores. Figures are
kept in FOLDER/scale.json, so that sizes can be measured in several runs; table and plot show all.

What was written is kept in FOLDER/<chunks>/data for the next run, unless --fresh.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench.search.corpus import (
    SHELVES,
    Floats,
    Query,
    add_arguments,
    chunks_of,
    make,
    queries_of,
)
from tests.bench.search.desk import desk, hits, resident, written
from tests.bench.search.plot import Line, Panel, svg
from tests.bench.suite import Client, respaced

CLIENTS = 16
CURATED = 20  # queries that are curated, so that all their passages fit into rerank's cache
TOP = 10
Figures = dict[str, float]


class Desk:
    """Asks retrieve, one request at a time, and keeps the milliseconds by kind of request."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/retrieve"
        self._client = Client()
        self.milliseconds: dict[str, list[float]] = {}
        self.stages: dict[str, list[float]] = {}

    def ask(self, kind: str, query: str, **body: Any) -> dict[str, Any]:
        """The answer. Ends the program unless it is one, and whole."""
        body = {"query": query, "corpora": ["bench"], **body}
        started = time.perf_counter()
        answer = self._client.call("POST", self._url, body)
        self.milliseconds.setdefault(kind, []).append((time.perf_counter() - started) * 1000)
        hits(answer)
        if kind == "plain":
            for stage, taken in answer["timings_ms"].items():
                self.stages.setdefault(stage, []).append(taken)
        return answer

    def figures(self) -> Figures:
        """p50 and p95 of each kind, and the median of each stage of the plain ones."""
        found = {}
        for kind, taken in self.milliseconds.items():
            found[f"{kind}_p50"], found[f"{kind}_p95"] = map(float, np.quantile(taken, [0.5, 0.95]))
        return found | {f"stage_{name}": statistics.median(ms) for name, ms in self.stages.items()}


def one_at_a_time(desk: Desk, queries: Sequence[Query], rounds: int) -> None:
    """All kinds of requests but those of many clients."""
    texts = [query.text for query in queries]
    for number, text in enumerate(texts):  # embed and the indexes see each query once
        desk.ask("first", text, curate=False)
        if number < SHELVES:
            desk.ask("shelf first", text, curate=False, filter=_shelf(number))
    for turn in range(rounds):
        for number, text in enumerate(texts):
            kinds = [("plain", {}), ("filtered", {"filter": _shelf(number)})]
            for kind, body in kinds if (turn + number) % 2 else reversed(kinds):
                desk.ask(kind, text, curate=False, **body)
    for number, text in enumerate(texts):
        desk.ask("new query", respaced(text, number + 1), curate=False)
    for turn in range(1 + rounds):
        for text in texts[:CURATED]:
            desk.ask("curated" if turn else "curated cold", text, curate=True)


def _shelf(number: int) -> dict[str, Any]:
    return {"type": "eq", "key": "shelf", "value": number % SHELVES}


async def many_clients(url: str, queries: Sequence[Query], seconds: float) -> Figures:
    """Requests a second of so many clients, without curation, and their latency."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as http:
        taken: list[float] = []
        end = time.perf_counter() + seconds

        async def client(first: int) -> None:
            number = first
            while (started := time.perf_counter()) < end:
                text = queries[number % len(queries)].text
                body = {"query": text, "corpora": ["bench"], "curate": False}
                async with http.post("/retrieve", json=body) as response:
                    answer = await response.json()
                    if response.status != 200:
                        sys.exit(f"/retrieve: {response.status} {str(answer)[:300]}")
                    hits(answer)
                taken.append((time.perf_counter() - started) * 1000)
                number += CLIENTS

        started = time.perf_counter()
        await asyncio.gather(*map(client, range(CLIENTS)))
        rate = len(taken) / (time.perf_counter() - started)
    p50, p95 = map(float, np.quantile(taken, [0.5, 0.95]))
    return {"rate": rate, "clients_p50": p50, "clients_p95": p95}


def recall(desk: Desk, corpus: Path, queries: Sequence[Query], vectors: Floats) -> float:
    """Of the ten chunks that are nearest to a query, the share that the dense arm finds."""
    truth = nearest(corpus, vectors, TOP)
    wanted = set(truth.ravel().tolist())
    names: dict[int, str] = {}
    document, number = "", 0
    for row, chunk in enumerate(chunks_of(corpus)):
        number = number + 1 if chunk.document == document else 0
        document = chunk.document
        if row in wanted:
            names[row] = f"{document}#{number}"
    found = 0
    for query, rows in zip(queries, truth.tolist(), strict=True):
        answer = desk.ask("dense", query.text, arms=["dense"], top_k=TOP, curate=False)
        ids = {one["id"] for hit in hits(answer) for one in [hit, *hit.get("duplicates", ())]}
        found += len(ids & {names[row] for row in rows})
    return found / truth.size


def nearest(corpus: Path, queries: Floats, most: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The rows of the vectors that are nearest to each query, best first, int64 [q, most]."""
    vectors: Floats = np.load(corpus / "vectors.npy", mmap_mode="r")
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), 100_000):
        part = queries @ np.asarray(vectors[start : start + 100_000]).T
        places = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        scores, rows = np.hstack([scores, part]), np.hstack([rows, places])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        scores = np.take_along_axis(scores, best, axis=1)
        rows = np.take_along_axis(rows, best, axis=1)
    return rows


def measure(corpus: Path, options: argparse.Namespace) -> Figures:
    """One size."""
    built = written(corpus, fresh=options.fresh)
    all_queries, all_vectors = queries_of(options.folder)
    step = max(1, len(all_queries) // options.queries)  # of all collections
    queries, vectors = all_queries[::step][: options.queries], all_vectors[::step]
    with tempfile.TemporaryDirectory() as logs, desk(corpus / "data", Path(logs)) as (suite, ready):
        url = suite.url("retrieve")
        client = Desk(url)
        one_at_a_time(client, queries, options.rounds)
        found = {"recall": recall(client, corpus, queries, vectors[: len(queries)])}
        found |= client.figures() | asyncio.run(many_clients(url, queries, options.seconds))
        return {**built, "ready_s": ready, **found, "resident_mb": resident(suite)}


ROWS: dict[str, tuple[str, str]] = {
    "write": ("≤ 25 min at 1M", "{build_s:.0f} s, {build_peak_mb:.0f} MiB at most"),
    "on disk": ("", "{disk_mb:.0f} MiB"),
    "open (retrieve from start to ready)": ("≤ 20 s at 1M", "{open_s:.1f} s ({ready_s:.1f} s)"),
    "retrieve resident": ("≤ 6 GB at 1M", "{resident_mb:.0f} MiB"),
    "p50 / p95, not curated": (
        "≤ 15 / 30 ms at 100k, 40 at 1M",
        "{plain_p50:.1f} / {plain_p95:.1f}",
    ),
    "the same, query vector not cached": ("", "{new query_p50:.1f} / {new query_p95:.1f}"),
    "the same, filtered to 1 %": ("≤ 2 x", "{filtered_p50:.1f} / {filtered_p95:.1f}"),
    "a filter's first use": ("", "{shelf first_p50:.1f} / {shelf first_p95:.1f}"),
    "curated, warm": ("≤ 45 ms at 100k", "{curated_p50:.1f} / {curated_p95:.1f}"),
    "curated, cold": ("", "{curated cold_p50:.0f} / {curated cold_p95:.0f}"),
    "requests/s of 16 clients": ("≥ 80 at 100k", "{rate:.0f}"),
    "their p50 / p95": ("", "{clients_p50:.0f} / {clients_p95:.0f}"),
    "dense recall@10": ("≥ 0.99, 0.95 at 1M", "{recall:.4f}"),
}


def table(found: dict[int, Figures]) -> Table:
    """A column for each size."""
    sizes = sorted(found)
    shown = Table("", "mark", *(f"{size:,}" for size in sizes))
    shown.title = f"/retrieve over HTTP, ms; {os.cpu_count()} cores"
    for name, (mark, form) in ROWS.items():
        shown.add_row(name, mark, *(form.format(**found[size]) for size in sizes))
    stages = sorted({name for one in found.values() for name in one if name.startswith("stage_")})
    for name in stages:
        times = [f"{found[size].get(name, 0):.2f}" for size in sizes]
        shown.add_row(f"median of stage {name.removeprefix('stage_')}", "", *times)
    return shown


def plot(found: dict[int, Figures]) -> str:
    """Latency and memory against size, as SVG."""

    def line(label: str, name: str) -> Line:
        return Line(label, [(size, found[size][name]) for size in sorted(found)])

    latency = [
        line("p50", "plain_p50"),
        line("p95", "plain_p95"),
        line("p50 in 1 %", "filtered_p50"),
    ]
    return svg(
        [
            Panel("/retrieve without curation, ms", "chunks", latency),
            Panel("resident memory of retrieve, MiB", "chunks", [line("", "resident_mb")]),
        ]
    )


def main() -> None:
    """Measure each size, print one table of all that were ever measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--chunks", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of the 16 clients")
    parser.add_argument("--fresh", action="store_true", help="write the corpora anew")
    parser.add_argument("--plot", type=Path, help="SVG file; FOLDER/scale.svg if not given")
    options = parser.parse_args()
    kept = options.folder / "scale.json"
    for chunks in options.chunks:
        corpus = make(options.folder, options.datasets, chunks, options.real)
        figures = measure(corpus, options)
        known = json.loads(kept.read_text()) if kept.exists() else {}
        kept.write_text(json.dumps(known | {str(chunks): figures}, indent=1))
    found = {int(size): figures for size, figures in json.loads(kept.read_text()).items()}
    (options.plot or options.folder / "scale.svg").write_text(plot(found), encoding="utf-8")
    Console(width=150).print(table(found))


if __name__ == "__main__":
    main()
