"""How fast a corpus is backed up, restored and exported, through HTTP.

`python -m tests.bench.backup [CHUNKS]` (50,000 by default): made-up vectors and words, as in
tests/bench/local_store.py. Prints one line of JSON: megabytes (10**6 bytes) a second.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np

from services.retrieve.app import build
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from shared.settings import Settings
from shared.telemetry import configure_logging
from tests.bench.local_store import (
    CHUNKS_IN_DOCUMENT,
    DIMENSION,
    DOCUMENTS_IN_WRITE,
    make_document,
)
from tests.suite import free_port, serving

PART = 1024 * 1024


def placed(document: NewDocument) -> NewDocument:
    """A document whose chunks are where they say: a backup of another one is refused."""
    chunks, at = [], 0
    for chunk in document.chunks:
        chunks.append(replace(chunk, start=at, end=at + len(chunk.text)))
        at += len(chunk.text) + 1
    return replace(document, chunks=chunks)


def fill(folder: Path, chunks: int) -> None:
    """Make the corpus `c`."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(3, 10))) for _ in range(20_000)]
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), ModelStamp("random", "0", DIMENSION))
    numbers = range(chunks // CHUNKS_IN_DOCUMENT)
    for at in range(0, len(numbers), DOCUMENTS_IN_WRITE):
        batch = numbers[at : at + DOCUMENTS_IN_WRITE]
        catalog.get("c").write([placed(make_document(number, words, random)) for number in batch])
    catalog.close()


async def save(client: httpx.AsyncClient, path: str, file: Path) -> float:
    """Megabytes a second of an answer, from the request to its last byte."""
    start, size = time.perf_counter(), 0
    async with client.stream("GET", path) as answer:
        answer.raise_for_status()
        with file.open("wb") as out:
            async for part in answer.aiter_bytes(PART):
                out.write(part)
                size += len(part)
    return size / (time.perf_counter() - start) / 1e6


async def parts(file: Path) -> AsyncIterator[bytes]:
    """A file, part by part."""
    with file.open("rb") as source:
        while part := source.read(PART):
            yield part


async def measure(data: Path, chunks: int) -> dict[str, float]:
    """The figures."""
    fill(data / "corpora", chunks)
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = Settings(data_dir=data, embed_url=nobody, rerank_url=nobody, deadline_ms=3_600_000)
    file = data / "c.backup"
    async with (
        serving(await build(settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=3600) as client,
    ):
        figures = {"chunks": chunks, "backup_mb_s": await save(client, "/corpora/c/backup", file)}
        figures["file_mb"] = file.stat().st_size / 1e6
        start = time.perf_counter()
        answer = await client.post("/corpora/again/restore", content=parts(file))
        answer.raise_for_status()
        figures["restore_mb_s"] = figures["file_mb"] / (time.perf_counter() - start)
        for form in ("ndjson", "parquet"):
            path = f"/corpora/c/export?format={form}&vectors=true"
            figures[f"{form}_mb_s"] = await save(client, path, data / form)
    figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {name: round(value, 1) for name, value in figures.items()}


if __name__ == "__main__":
    configure_logging("bench", Settings())  # to stderr
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(asyncio.run(measure(Path(temporary), size))), flush=True)
