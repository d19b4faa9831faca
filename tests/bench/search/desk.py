"""The desk over a made corpus: written through its own store, served by its own services.

    python -m tests.bench.search.desk CORPUS DATA

CORPUS is a folder that tests/bench/search/corpus.py made, DATA a data folder. Prints as JSON how
long writing took, the most memory it had, how long the corpus then takes to open, and what it takes
on disk. The other scripts run it in a process of its own, so that nothing of the writing is in what
they measure. Writing is `LocalStore.write`, 256 documents at a time, the most that a request may
have: what indexing costs once the vectors are there.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import NewChunk, NewDocument
from shared.settings import Settings
from shared.telemetry import configure_logging
from tests.bench.search.corpus import SPEC, Chunk, Floats, chunks_of, stamp_of
from tests.suite import REPOSITORY, Suite, prepare_suite

DOCUMENTS = 256  # in a write


def documents_of(corpus: Path) -> Iterator[NewDocument]:
    """The documents of a made corpus, with their vectors."""
    vectors: Floats = np.load(corpus / "vectors.npy", mmap_mode="r")
    at = 0
    for name, group in groupby(chunks_of(corpus), key=lambda chunk: chunk.document):
        chunks = list(group)
        yield _document(name, chunks, np.array(vectors[at : at + len(chunks)]))
        at += len(chunks)


def _document(name: str, chunks: Sequence[Chunk], vectors: Floats) -> NewDocument:
    parts, start = [], 0
    for chunk in chunks:
        parts.append(NewChunk(chunk.text, start, start + len(chunk.text), chunk.tokens))
        start += len(chunk.text) + 1
    return NewDocument(
        id=name,
        content_hash="-",
        title=chunks[0].title or None,
        url=None,
        format="text",
        metadata={"shelf": chunks[0].shelf},
        text="\n".join(part.text for part in parts),
        chunks=parts,
        vectors=vectors,
    )


def write(corpus: Path, data: Path) -> dict[str, float]:
    """Make the corpus `bench` in a data folder; the figures of the module's docstring."""
    corpora = Settings(data_dir=data).corpora_dir
    catalog = Catalog.open(corpora)
    catalog.create(SPEC, stamp_of(corpus.parent))
    store = catalog.get(SPEC.name)
    documents = documents_of(corpus)
    started = time.perf_counter()
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("writing", total=int(corpus.name))
        while batch := list(islice(documents, DOCUMENTS)):
            store.write(batch)
            bar.advance(task, sum(len(document.chunks) for document in batch))
    catalog.close()
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    Catalog.open(corpora).close()
    size = sum(file.stat().st_size for file in corpora.rglob("*") if file.is_file())
    return {
        "build_s": seconds,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "open_s": time.perf_counter() - started,
        "disk_mb": size / 2**20,
    }


def written(corpus: Path, *, fresh: bool = False) -> dict[str, float]:
    """Write the corpus into its own data folder unless it was; the figures of when it was.

    Ends the program where it can't be written.
    """
    figures = corpus / "written.json"
    if fresh or not figures.exists():
        figures.unlink(missing_ok=True)
        shutil.rmtree(corpus / "data", ignore_errors=True)
        command = [sys.executable, "-m", "tests.bench.search.desk", str(corpus)]
        done = subprocess.run(
            [*command, str(corpus / "data")], cwd=REPOSITORY, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            sys.exit(f"{corpus} could not be written")
        figures.write_bytes(done.stdout.splitlines()[-1])
    found: dict[str, float] = json.loads(figures.read_text())
    return found


@contextmanager
def desk(data: Path, logs: Path) -> Iterator[tuple[Suite, float]]:
    """embed, rerank and retrieve over a data folder; seconds from retrieve's start until ready."""
    suite = prepare_suite(logs, REFDESK_DATA_DIR=str(data), REFDESK_LOG_LEVEL="warning")
    try:
        suite.url("rerank")
        started = time.perf_counter()
        suite.url("retrieve")
        yield suite, time.perf_counter() - started
    finally:
        suite.stop()


def resident(suite: Suite) -> float:
    """Resident MiB of retrieve."""
    process = suite.services["retrieve"].process
    assert process is not None
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def hits(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of an answer; ends the program where a stage of the search failed."""
    if answer["degraded"]:
        sys.exit(f"the desk answered without {answer['degraded']}: the figures would be wrong")
    found: list[dict[str, Any]] = answer["hits"]
    return found


def main() -> None:
    """Write one corpus, print the figures as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    configure_logging("bench", Settings())  # to stderr
    print(json.dumps(write(options.corpus, options.data)))


if __name__ == "__main__":
    main()
