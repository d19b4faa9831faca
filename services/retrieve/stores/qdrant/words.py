"""Words as a sparse vector: BM25 by Qdrant's IDF modifier.

A chunk's weight for a term is what BM25 makes of the term's count and the chunk's length, the
query's weight how often the term comes in it; Qdrant multiplies by the idf of its collection
(`ln(1 + (N - n + 0.5) / (n + 0.5))`, as Lucene and Tantivy have it), so that the dot product is
the BM25 score. The lengths are put in proportion to an average that is fixed when a weight is
made; see services/retrieve/stores/qdrant/calibration.py. Lengths are taken as Tantivy keeps them,
so that the local store gives the same scores.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.analysis import analyser, terms

K1, B = 1.2, 0.75
# Lengths that a byte of Tantivy's stands for: each up to 40, then steps of up to an eighth, eight
# between two powers of two (Lucene's SmallFloat.byte4ToInt).
_EXACT = 24
_STEPS: list[int] = [
    *range(_EXACT + 8),
    *(_EXACT + (mantissa << shift) for shift in range(28) for mantissa in range(8, 16)),
]
Weights = tuple[NDArray[np.uint32], NDArray[np.float32]]  # ascending indices, and their values


class Words:
    """The terms of texts of one language, as weights."""

    def __init__(self, language: str) -> None:
        """Raises ApiError 422 for an unknown language."""
        self._language = language
        self._analyser = analyser(language)

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, with repeats."""
        return terms(text, self._language, self._analyser)

    def of_query(self, query: str) -> Weights:
        """A weight for each distinct term: how often it comes."""
        return _sorted(_counts(self.terms(query)))


def of_chunk(terms: list[str], average: float) -> Weights:
    """The weights of a chunk's terms in a corpus whose chunks have `average` terms."""
    scale = K1 * (1 - B + B * _length(len(terms)) / average) if average > 0 else K1
    counts = _counts(terms)
    return _sorted({term: n * (K1 + 1) / (n + scale) for term, n in counts.items()})


def body(title: str | None, text: str) -> str:
    """What the words of a chunk are taken from."""
    return f"{title}\n{text}" if title else text


def _length(terms: int) -> int:
    """A number of terms as Tantivy keeps it: rounded down to the next step."""
    return _STEPS[bisect_right(_STEPS, terms) - 1]


def _counts(terms: list[str]) -> dict[int, float]:
    counts: dict[int, float] = {}
    for term, count in Counter(terms).items():
        place = _index(term)
        counts[place] = counts.get(place, 0.0) + count
    return counts


def _sorted(weights: dict[int, float]) -> Weights:
    indices = sorted(weights)
    values = [weights[index] for index in indices]
    return np.array(indices, np.uint32), np.array(values, np.float32)


@lru_cache(maxsize=100_000)
def _index(term: str) -> int:
    """The place of a term: 32 bits of its BLAKE2b. Of a million terms about one in 4,300 shares
    its place with another."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "little")
