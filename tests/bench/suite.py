"""The suite's own speed and memory: start, query embedding, retrieval, ingest, resident size.

    python -m tests.bench.suite FOLDER [--chunks 5000] [--queries 200]

FOLDER is a test collection in BEIR layout; its text is cut into documents that make one chunk of
128 tokens each, title line and special tokens included. The suite is started by `refdesk up` and
asked over HTTP, one request at a time. Cold curation uses queries whose windows have no passage in
common, so that no token vector of them is cached; warm curation asks the same queries again.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from shared.modelstore.store import ModelStore
from shared.settings import SERVICES, Settings
from tests.suite import free_port

CHUNK_TOKENS = 128
SPECIAL_TOKENS = 2
BATCH = 64
COLD_QUERIES = 12
QUESTION_WORDS = 10  # as many as a question of SQuAD has on average
URLS = dict[str, str]


def texts(folder: Path, tokenizer: Tokenizer, count: int) -> Iterator[str]:
    """`count` texts of 128 tokens each, special ones included."""
    size = CHUNK_TOKENS - SPECIAL_TOKENS
    with (folder / "corpus.jsonl").open() as lines:
        for line in lines:
            text = json.loads(line)["text"]
            offsets = tokenizer.encode(text, add_special_tokens=False).offsets
            for start in range(0, len(offsets) - size + 1, size):
                if count == 0:
                    return
                count -= 1
                yield text[offsets[start][0] : offsets[start + size - 1][1]]


@contextmanager
def suite(data: Path) -> Iterator[tuple[int, URLS, float]]:
    """`refdesk up` on free ports: its process id, the services' URLs, seconds until all ready."""
    base = free_port() - 1
    command = [sys.executable, "-m", "shared.cli.main", "up", "--data", str(data)]
    started = time.perf_counter()
    up = subprocess.Popen([*command, "--port-base", str(base)], stderr=subprocess.DEVNULL)
    urls = {name: f"http://127.0.0.1:{base + n}" for n, name in enumerate(SERVICES, start=1)}
    try:
        waiting = set(urls)
        while waiting:
            if up.poll() is not None:
                sys.exit(f"`refdesk up` ended with code {up.returncode}")
            for name in sorted(waiting):
                try:
                    if httpx.get(f"{urls[name]}/ready", timeout=30).status_code == 200:
                        waiting.discard(name)
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        yield up.pid, urls, time.perf_counter() - started
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()


def resident(pid: int) -> dict[str, float]:
    """Resident MiB of each service that the supervisor `pid` runs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    sizes = {}
    for child in children:
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        status = Path(f"/proc/{child}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        name = next((word[9:] for word in words if word.startswith("services.")), child)
        sizes[name] = kib / 1024
    return sizes


def times(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call, one after another."""
    taken = []
    for call in calls:
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def quantiles(milliseconds: Sequence[float]) -> str:
    """p50 and p95 in words."""
    ordered = sorted(milliseconds)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"p50 {statistics.median(ordered):.1f} ms, p95 {late:.1f} ms"


class Client:
    """Keeps one connection to each service. Bare, so that it adds little to what is measured."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def call(self, method: str, url: str, body: object) -> dict[str, Any]:
        """Send JSON; stop the whole run if it is not answered with success."""
        parts = urlsplit(url)
        connection = self._connections.setdefault(
            parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=120)
        )
        headers = {"Content-Type": "application/json"}
        connection.request(method, parts.path, json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
        if response.status not in (200, 201):
            sys.exit(f"{url}: {response.status} {data[:300]!r}")
        answer: dict[str, Any] = json.loads(data)
        return answer


def post(client: Client, url: str, body: object) -> dict[str, Any]:
    """POST JSON and return the parsed answer."""
    return client.call("POST", url, body)


def load(client: Client, urls: URLS, passages: Sequence[str]) -> str:
    """Ingest the passages as one-chunk documents; the rate in words."""
    corpus = f"{urls['retrieve']}/corpora/bench"
    client.call("PUT", corpus, {"chunk_tokens": CHUNK_TOKENS, "chunk_overlap": 0})
    chunks = 0
    started = time.perf_counter()
    for first in range(0, len(passages), BATCH):
        documents = [
            {"id": f"d{first + n}", "text": text}
            for n, text in enumerate(passages[first : first + BATCH])
        ]
        results = post(client, f"{corpus}/documents", {"documents": documents})["results"]
        chunks += sum(result["chunks"] for result in results)
    return f"{chunks / (time.perf_counter() - started):.1f} chunks/s ({chunks} chunks)"


def respaced(query: str, variant: int) -> str:
    """The query with other white space for each variant: the same tokens, not the same text.

    So a vector that embed has cached is not what is measured.
    """
    words = query.split()
    gaps = ["  " if variant >> place & 1 else " " for place in range(len(words))]
    return "".join(word + gap for word, gap in zip(words, gaps, strict=True)).strip()


def disjoint(client: Client, url: str, queries: Sequence[str]) -> list[str]:
    """Queries whose windows have no passage in common."""
    seen: set[str] = set()
    chosen: list[str] = []
    for query in queries:
        body = {"query": query, "corpora": ["bench"], "top_k": 50, "curate": False}
        found = {hit["id"] for hit in post(client, url, body)["hits"]}
        if len(found) == 50 and not found & seen:
            seen |= found
            chosen.append(query)
        if len(chosen) == COLD_QUERIES:
            break
    return chosen


def measure(folder: Path, chunks: int, count: int, data: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of the table: what, the mark, the figure."""
    with suite(data) as (_, _, seconds):
        yield "first start (builds the graph)", "≤ 40 s", f"{seconds:.1f} s"
    with suite(data) as (pid, urls, seconds):
        client = Client()
        yield "start, all four ready", "≤ 15 s", f"{seconds:.1f} s"
        path = ModelStore(Settings().models_dir).require("all-MiniLM-L6-v2").path
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        passages = list(texts(folder, tokenizer, chunks))
        yield "ingest, 128-token chunks", "≥ 40 /s", load(client, urls, passages)
        with (folder / "queries.jsonl").open() as lines:
            queries = [json.loads(line)["text"] for line in lines]
        asked = queries[:count]
        embed, retrieve = f"{urls['embed']}/v1/embeddings", f"{urls['retrieve']}/retrieve"

        def search(query: str, variant: int, *, curate: bool) -> dict[str, Any]:
            body = {"query": respaced(query, variant), "corpora": ["bench"], "curate": curate}
            return post(client, retrieve, body)

        def vector(query: str) -> dict[str, Any]:
            return post(client, embed, {"input": query})

        # As long as a question, and as the collection has it.
        for variant, words in ((1, QUESTION_WORDS), (14, None)):
            texts_asked = [" ".join(query.split()[:words]) for query in asked]
            tokens = statistics.mean(len(tokenizer.encode(text)) for text in texts_asked)
            embeddings = [lambda q=text, n=variant: vector(respaced(q, n)) for text in texts_asked]
            label = f"query embedding over HTTP, {tokens:.0f} tokens"
            yield label, "p50 ≤ 6 ms", quantiles(times(embeddings))
        plain = [lambda q=query: search(q, 2, curate=False) for query in asked]
        yield "/retrieve without curation", "p50 ≤ 15 ms", quantiles(times(plain))
        yield "the same again, query vectors cached", "", quantiles(times(plain))
        cold = disjoint(client, retrieve, queries)
        curated = [lambda q=query: search(q, 3, curate=True) for query in cold]
        label = f"/retrieve, curated cold (n={len(cold)})"
        yield label, "≤ 1.2 s", quantiles(times(curated))
        warm = [lambda q=q, n=n: search(q, n, curate=True) for n in range(4, 14) for q in cold]
        yield "/retrieve, curated warm", "p50 ≤ 40 ms", quantiles(times(warm))
        chat = {"model": "auto", "messages": [{"role": "user", "content": asked[0]}]}
        post(client, f"{urls['generate']}/v1/chat/completions", chat)
        sizes = resident(pid)
        shares = ", ".join(f"{name} {size:.0f}" for name, size in sorted(sizes.items()))
        yield "resident, four services", "≤ 1.2 GB", f"{sum(sizes.values()):.0f} MiB ({shares})"


def main() -> None:
    """Measure everything once and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    table = Table("what", "mark", "measured", title=f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as data:
        for row in measure(options.folder, options.chunks, options.queries, Path(data)):
            table.add_row(*row)
            print(*row, sep=" | ", file=sys.stderr)
    Console().print(table)


if __name__ == "__main__":
    main()
