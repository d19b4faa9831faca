"""How fast a local corpus is written, opened, rebuilt and searched.

`python -m tests.bench.local_store [CHUNKS ...]` (5,000 and 100,000 by default). Random unit vectors
and Zipf-distributed words: the engines' time depends on counts and lengths alone. Prints one line
of JSON for each size.
"""

import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import NewChunk, NewDocument
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.state import rebuilding
from shared.settings import Settings
from shared.telemetry import configure_logging

DIMENSION = 384
WORDS_IN_CHUNK = 130
CHUNKS_IN_DOCUMENT = 5
DOCUMENTS_IN_WRITE = 64
REPEATS = 200


def make_document(number: int, words: list[str], random: np.random.Generator) -> NewDocument:
    """A document of five chunks."""
    vectors = random.standard_normal((CHUNKS_IN_DOCUMENT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    picked = random.zipf(1.3, (CHUNKS_IN_DOCUMENT, WORDS_IN_CHUNK)) % len(words)
    texts = [" ".join(words[place] for place in row) for row in picked]
    chunks = [NewChunk(text, 0, len(text), WORDS_IN_CHUNK) for text in texts]
    return NewDocument(
        f"d{number}", "-", f"Title {number}", None, "text", {}, "\n".join(texts), chunks, vectors
    )


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def p50_ms(work: Callable[[], object]) -> float:
    """Median time of `work`, milliseconds."""
    return round(median(seconds(work) for _ in range(REPEATS)) * 1000, 2)


def measure(chunks: int, folder: Path) -> dict[str, float]:
    """Figures for a corpus of so many chunks."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(3, 10))) for _ in range(20_000)]
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), ModelStamp("random", "0", DIMENSION))
    store = catalog.get("c")
    writing = 0.0
    for at in range(0, chunks // CHUNKS_IN_DOCUMENT, DOCUMENTS_IN_WRITE):
        end = min(at + DOCUMENTS_IN_WRITE, chunks // CHUNKS_IN_DOCUMENT)
        batch = [make_document(number, words, random) for number in range(at, end)]
        start = time.perf_counter()
        store.write(batch)
        writing += time.perf_counter() - start
    vector = random.standard_normal(DIMENSION).astype(np.float32)
    vector /= np.linalg.norm(vector)
    query = " ".join(words[:12])
    keys = [key for key, _ in store.dense(vector, 100)]
    figures = {
        "chunks": store.info.chunks,
        "written_per_s": round(chunks / writing),
        "bm25_100_p50_ms": p50_ms(lambda: store.bm25(query, 100)),
        "bm25_scores_100_p50_ms": p50_ms(lambda: store.bm25_scores(query, keys)),
        "dense_100_p50_ms": p50_ms(lambda: store.dense(vector, 100)),
        "dense_scores_100_p50_ms": p50_ms(lambda: store.dense_scores(vector, keys)),
        "fetch_100_p50_ms": p50_ms(lambda: store.fetch(keys)),
    }
    figures["database_mb"] = round((folder / "c" / "g1" / "corpus.db").stat().st_size / 2**20, 1)
    lexical = (folder / "c" / "g1" / "lexical").iterdir()
    figures["word_index_mb"] = round(sum(file.stat().st_size for file in lexical) / 2**20, 1)
    database = store.info
    catalog.close()
    figures["open_s"] = round(seconds(lambda: Catalog.open(folder).close()), 2)
    shutil.rmtree(folder / "c" / "g1" / "lexical")
    figures["open_with_rebuild_s"] = round(seconds(lambda: rebuilt(folder)), 2)
    figures["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert database.chunks == chunks
    return figures


def rebuilt(folder: Path) -> None:
    """Open the corpora, and wait for what is built in the background."""
    catalog = Catalog.open(folder)
    while rebuilding(catalog.get("c")):
        time.sleep(0.01)
    catalog.close()


if __name__ == "__main__":
    configure_logging("bench", Settings())  # to stderr
    for size in [int(argument) for argument in sys.argv[1:]] or [5_000, 100_000]:
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(measure(size, Path(temporary) / "corpora")), flush=True)
