"""What a full reindex costs those who search and write meanwhile.

    python -m tests.bench.reindex [--documents 2000] [--seconds 30]

Starts embed, rerank and retrieve, loads a corpus, measures searches (uncurated, both arms) at a
steady rate while nothing else goes on and then during a reindex of the whole corpus, with a write
now and then. Prints the percentiles, the longest write, and whether p95 stays within 3 times idle.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from tests.reindexing import Corpus, text_of
from tests.suite import prepare_suite

_PAUSE_S = 0.1  # between two searches
_WRITE_PAUSE_S = 1.0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = prepare_suite(Path(folder))
        try:
            measure(suite.url("retrieve"), options.documents, options.seconds)
        finally:
            suite.stop()


def measure(url: str, documents: int, seconds: float) -> None:
    """One corpus, idle and during a reindex."""
    with httpx.Client(base_url=url, timeout=600) as http:
        corpus = Corpus.made(http, "bench", chunk_tokens=256)
        corpus.fill(documents)
        idle_until = time.monotonic() + seconds
        idle, _ = traffic(url, documents, lambda: time.monotonic() > idle_until)
        start = time.monotonic()
        job = corpus.reindex(chunk_tokens=128).raise_for_status().json()["id"]

        def over() -> bool:
            return corpus.job(job)["state"] not in ("queued", "running")

        busy, writes = traffic(url, documents, over)
        took = time.monotonic() - start
        state = corpus.job(job)["state"]
    print(f"{documents} documents, reindex {state} in {took:.1f} s")
    for name, times in (("idle", idle), ("reindex", busy)):
        p50, p95 = np.percentile(times, [50, 95]) * 1000
        print(f"search {name:8} n={len(times):5}  p50 {p50:7.1f} ms  p95 {p95:7.1f} ms")
    print(f"longest write {max(writes) * 1000:.0f} ms of {len(writes)}")
    ratio = np.percentile(busy, 95) / np.percentile(idle, 95)
    print(f"p95 during / idle: {ratio:.2f} (mark: 3)")


def traffic(url: str, documents: int, over: Callable[[], bool]) -> tuple[list[float], list[float]]:
    """Seconds of each search and of each write until it is over."""
    searches: list[float] = []
    writes: list[float] = []
    ended = threading.Event()

    def search() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            turn = 0
            while not ended.is_set():
                turn += 1
                query = f"which shelf holds {text_of(turn % documents, sentences=1)[4:40]}"
                body = {"query": query, "corpora": ["bench"], "curate": False}
                start = time.monotonic()
                http.post("/retrieve", json=body).raise_for_status()
                searches.append(time.monotonic() - start)
                time.sleep(_PAUSE_S)

    def write() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            corpus, turn = Corpus(http, "bench"), 0
            while not ended.is_set():
                turn += 1
                start = time.monotonic()
                corpus.write({f"d{turn % documents}": text_of(turn, turn)})
                writes.append(time.monotonic() - start)
                time.sleep(_WRITE_PAUSE_S)

    threads = [threading.Thread(target=one) for one in (search, write)]
    for thread in threads:
        thread.start()
    while not over():
        time.sleep(0.2)
    ended.set()
    for thread in threads:
        thread.join()
    return searches, writes


if __name__ == "__main__":
    main()
