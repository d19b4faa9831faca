"""How late the desk answers while documents are written into the corpus that is searched.

    python -m tests.bench.search.during_ingest FOLDER DATASETS [--chunks 100000] [--seconds 60]

One client searches without curation, one request after another (embed has the queries' vectors
cached), while another writes 64 documents a request as fast as they are taken: first new ones, so
that embed computes on the same cores, then the same texts under other names, whose vectors embed
has cached, so that retrieve alone is the bound. Before, between and after, the desk is idle. It
works on a copy of the corpus in a temporary folder.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench.peers.texts import mixed
from tests.bench.search.corpus import Query, add_arguments, make, queries_of
from tests.bench.search.desk import desk, hits, written
from tests.bench.suite import Client

DOCUMENTS = 64
QUERIES = 200
COLLECTION = "nfcorpus"  # whose texts are written

Batch = list[dict[str, str]]


class Writer(threading.Thread):
    """Writes batches until it is told to stop; what it wrote is in `batches` and `chunks`."""

    def __init__(self, url: str, batches: Iterator[Batch]) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/corpora/bench/documents"
        self._source = batches
        self._ending = threading.Event()
        self.batches: list[Batch] = []
        self.chunks = 0
        self.seconds = 0.0

    def run(self) -> None:
        """One request after another."""
        client = Client()
        started = time.perf_counter()
        for batch in self._source:
            answer = client.call("POST", self._url, {"documents": batch})
            self.chunks += sum(result["chunks"] for result in answer["results"])
            self.batches.append(batch)
            self.seconds = time.perf_counter() - started
            if self._ending.is_set():
                return

    def end(self) -> None:
        """Wait for the request that is under way. Raises SystemExit where one failed."""
        self._ending.set()
        self.join()
        if not self.chunks:
            raise SystemExit("nothing was written: no figures")


def fresh(folder: Path) -> Iterator[Batch]:
    """Batches of documents that were never seen."""
    texts = mixed(folder)
    for number in count():
        part = islice(texts, DOCUMENTS)
        yield [{"id": f"new-{number}-{n}", "text": text} for n, text in enumerate(part)]


def again(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The texts of some batches, over and over, each time under other names."""
    for turn in count():
        for batch in batches:
            yield [{"id": f"again-{turn}-{one['id']}", "text": one["text"]} for one in batch]


def search(url: str, queries: Sequence[Query], seconds: float) -> list[float]:
    """Milliseconds of each search."""
    client = Client()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    for number in count():
        body = {"query": queries[number % len(queries)].text, "corpora": ["bench"]}
        started = time.perf_counter()
        if started > end:
            return taken
        hits(client.call("POST", f"{url}/retrieve", body | {"curate": False}))
        taken.append((time.perf_counter() - started) * 1000)
    raise AssertionError


def measure(data: Path, options: argparse.Namespace, logs: Path) -> Table:
    """All phases, a row for each."""
    queries = queries_of(options.folder)[0][:QUERIES]
    table = Table("", "searches", "p50 ms", "p95 ms", "longest ms", "p95, of idle", "chunks/s")
    table.title = f"{options.chunks:,} chunks; mark: p95 ≤ 3 x idle"
    with desk(data, logs) as (suite, _):
        url = suite.url("retrieve")
        search(url, queries, options.seconds / 4)  # embed has all vectors after it
        idle = 0.0
        known: list[Batch] = []
        for phase in ("idle", "new documents", "idle", "documents known to embed", "idle"):
            writer = None
            if phase != "idle":
                source = again(known) if known else fresh(options.datasets / COLLECTION)
                writer = Writer(url, source)
                writer.start()
            taken = search(url, queries, options.seconds)
            if writer:
                writer.end()
                known = known or writer.batches
            p50, p95 = np.quantile(taken, [0.5, 0.95])
            idle = idle or float(p95)
            figures = (f"{p50:.1f}", f"{p95:.1f}", f"{max(taken):.0f}", f"{p95 / idle:.2f}")
            rate = f"{writer.chunks / writer.seconds:.1f}" if writer else ""
            table.add_row(phase, str(len(taken)), *figures, rate)
    return table


def main() -> None:
    """Measure, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the five phases")
    options = parser.parse_args()
    corpus = make(options.folder, options.datasets, options.chunks, options.real)
    written(corpus)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        shutil.copytree(corpus / "data", data)
        Console(width=130).print(measure(data, options, Path(scratch)))


if __name__ == "__main__":
    main()
