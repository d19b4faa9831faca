"""Ways to cut documents compared: how well what they cut is found, and how fast they cut.

    python -m tests.bench.chunking DATASETS [--markdown FOLDER]... [--half tune|report]
        [--collections NAME]... [--ways NAME]... [--questions 300] [--limit 256] [--cache FILE]

Collections: `squad`, articles put together again from their paragraphs (found: the first chunk with
the answer in the question's own paragraph); `scifact` and `cranfield`, abstracts (found: a judged
document); `headings` and `sentences`, Markdown of the handbook or the given folders. There a
question is the heading of a section, which the text then calls "Section", or the first sentence of
a section, which the text then lacks; found is the first chunk that lies in the section, or covers
it, by half. Articles, documents' queries and sections are parted in two halves by a hash: choices
are made on `tune` alone. nDCG@10 of BM25, dense and both fused (RRF, k 60); `read` is the share of
questions whose answer is among the first 1,024 tokens of the fused list, which, unlike nDCG, does
not favour large chunks. Intervals: 95 %, bootstrap over questions, against the first way.

Vectors are kept in the cache file, so that the same text is embedded once.
"""

import argparse
import hashlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.stores.local.lexical import LexicalIndex
from shared.cli.evaluation.significance import bootstrap_interval
from shared.encoder.encoder import Encoder
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.bench.chunking_texts import Question, Source, collections
from tests.bench.chunking_ways import WAYS, Piece, Way

MODEL = "all-MiniLM-L6-v2"
WINDOW = 100  # hits of each arm
RRF_K = 60
BATCH = 32
READ_TOKENS = 1_024

Floats = NDArray[np.float32]
Scores = dict[str, NDArray[np.float64]]


class Librarian:
    """The default model in this process; what it has embedded is kept."""

    def __init__(self, cache: Path | None) -> None:
        settings = Settings()
        folder = ModelStore(settings.models_dir).require(MODEL).path
        self.counter = TokenCounter((folder / "tokenizer.json").read_bytes())
        self._encoder = Encoder.open(folder, settings.built_dir, "int8", 2)
        self._cache, self._known = cache, dict[str, Floats]()
        if cache and cache.exists():
            with np.load(cache) as kept:
                self._known = dict(zip(kept["names"].tolist(), kept["vectors"], strict=True))

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, float32 [n, d]."""
        names = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
        new = {
            name: text for name, text in zip(names, texts, strict=True) if name not in self._known
        }
        order = sorted(new, key=lambda name: len(new[name]))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            tokens = self._encoder.tokenizer.tokenize([new[name] for name in batch])
            self._known |= zip(batch, self._encoder.embed(tokens), strict=True)
        if new and self._cache:
            np.savez(
                self._cache,
                names=np.array(list(self._known)),
                vectors=np.stack(list(self._known.values())),
            )
        return np.stack([self._known[name] for name in names])


@dataclass(frozen=True)
class Found:
    """What a way did on a collection. scores: by measure, float64 [questions]."""

    chunks: int
    tokens: float  # of a chunk, on average
    seconds: float  # of cutting
    megabytes: float
    scores: Scores


def measure(
    way: Way,
    sources: Sequence[Source],
    questions: Sequence[Question],
    librarian: Librarian,
    limit: int,
) -> Found:
    """Cut, index and ask."""
    counter = librarian.counter
    began = time.perf_counter()
    cut = [way.cut(one.text, one.title, one.outline, counter, limit) for one in sources]
    seconds = time.perf_counter() - began
    pieces = [(source, piece) for source, own in zip(sources, cut, strict=True) for piece in own]
    vectors = librarian.embed([piece.read for _, piece in pieces])
    words = LexicalIndex.build(
        None, "en", ((key, piece.words) for key, (_, piece) in enumerate(pieces))
    )
    asked = librarian.embed([one.text for one in questions])
    names = ("bm25", "dense", "fused", "read")
    scores: Scores = {name: np.zeros(len(questions)) for name in names}
    for place, (question, vector) in enumerate(zip(questions, asked, strict=True)):
        by_words = [key for key, _ in words.search(question.text, WINDOW)]
        by_sense = np.argsort(-(vectors @ vector), kind="stable")[:WINDOW].tolist()
        fused = _fused(by_words, by_sense)
        for name, ranked in (("bm25", by_words), ("dense", by_sense), ("fused", fused)):
            scores[name][place] = question.ndcg([pieces[key] for key in ranked])
        scores["read"][place] = _read(question, [pieces[key] for key in fused])
    size = sum(len(one.text.encode()) for one in sources) / 1e6
    tokens = float(np.mean([piece.tokens for _, piece in pieces]))
    return Found(len(pieces), tokens, seconds, size, scores)


def _fused(*runs: Sequence[int]) -> list[int]:
    gains: dict[int, float] = {}
    for run in runs:
        for rank, key in enumerate(run, start=1):
            gains[key] = gains.get(key, 0.0) + 1 / (RRF_K + rank)
    return sorted(gains, key=lambda key: (-gains[key], key))


def _read(question: Question, ranked: Sequence[tuple[Source, Piece]]) -> float:
    """1.0 where an answer is in the first chunks that have READ_TOKENS together."""
    left = READ_TOKENS
    for source, piece in ranked:
        left -= piece.tokens
        if left < 0:
            return 0.0
        if question.found(source, piece):
            return 1.0
    return 0.0


def main() -> None:
    """One table for each collection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--markdown", type=Path, action="append", help="instead of the handbook")
    parser.add_argument("--half", choices=("tune", "report"), default="report")
    parser.add_argument("--collections", nargs="*")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--cache", type=Path)
    chosen = parser.parse_args()
    console = Console(width=190)
    librarian = Librarian(chosen.cache)
    for name, load in collections(chosen.datasets, chosen.markdown).items():
        if chosen.collections and name not in chosen.collections:
            continue
        sources, questions = load()
        half = chosen.half == "tune"
        mine = [one for one in questions if (zlib.crc32(one.group.encode()) % 2 == 0) == half]
        mine = sorted(mine, key=lambda one: zlib.crc32(one.text.encode()))[: chosen.questions]
        if name == "squad":  # the other half's articles need not be embedded
            groups = {one.group for one in mine}
            sources = [one for one in sources if one.id in groups]
        table = Table(
            title=f"{name}, {chosen.half}: {len(sources)} documents, {len(mine)} questions"
        )
        for column in (
            "way",
            "chunks",
            "tokens",
            "MB/s",
            "bm25",
            "dense",
            "fused",
            "read",
            "fused - first",
            "read - first",
        ):
            table.add_column(column, no_wrap=True)
        first: Found | None = None
        for way in chosen.ways:
            found = measure(WAYS[way], sources, mine, librarian, chosen.limit)
            first = first or found
            gains = [found.scores[one] - first.scores[one] for one in ("fused", "read")]
            table.add_row(
                way,
                str(found.chunks),
                f"{found.tokens:.0f}",
                f"{found.megabytes / found.seconds:.2f}",
                *(f"{found.scores[one].mean():.4f}" for one in ("bm25", "dense", "fused", "read")),
                *(_interval(gain) for gain in gains),
            )
        console.print(table)


def _interval(gain: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(gain)
    return f"{gain.mean():+.4f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
