"""Near-duplicates: passages that say the same go behind the best of them. Pure functions.

Two passages are the same if their texts are, but for case and white space, or if the Jaccard index
of their shingles (runs of five words) is at least 0.5: common shingles over all shingles of both.
(Broder: On the resemblance and containment of documents, 1997.)

Why 0.5. Neighbouring chunks of a document share less than half of their tokens by their overlap, so
that the index of two of equal length is below 1/3; on the handbook and on abstracts it was at most
0.30 with the widest overlap that a corpus may have, and 0.14 with the default. Of the chunks of the
same pages published again with another footer of twenty words, 97 % reach 0.5, and of the last
chunks, which hold the footer, 91 %. In the windows of real questions, 349,000 pairs of chunks of
NFCorpus had 68 above 0.5, all of papers that are stored twice; 348,000 of SciFact had none above
0.3. Pages made from one template can reach it and differ in a number: they are behind, not lost.
"""

import re
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.retrieve.search.pack import Passage

SAME = 0.5
_WORDS = 5
# Scripts without spaces: each character counts as a word.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\\s\u3040-\u30ff\u3400-\u9fff]+")
# A multiplier of a rolling hash modulo 2^64; odd, so that no word's number is lost.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Ints = NDArray[np.int64]


def collapse(passages: Sequence[Passage]) -> list[tuple[Passage, tuple[Passage, ...]]]:
    """The passages (best first) without near-duplicates, each with those that it stands for.

    A passage goes behind the first kept one that it equals; so nothing is behind one that it does
    not itself resemble.
    """
    texts = _Texts([one.record.text for one in passages])
    free = np.ones(len(passages), np.bool_)
    groups = []
    for place, passage in enumerate(passages):
        if not free[place]:
            continue
        free[place] = False
        behind = [int(other) for other in texts.same_as(place) if free[other]]
        free[behind] = False
        groups.append((passage, tuple(passages[other] for other in behind)))
    return groups


class _Texts:
    """The shingles of texts, as far as they are in several of them: nearly all are in one alone.

    Shingles that are in the very same texts are counted as one, with a weight: an overlap of two
    chunks is one then, and so is what all pages have from a template. Without that every pair of
    texts would cost as much as they have in common.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = count = len(texts)
        shingle, holder = _shingles(texts)
        self._sizes = np.bincount(holder, minlength=count)
        shingle, holder = self._in_question(shingle, holder)
        starts = np.flatnonzero(np.diff(shingle, prepend=~shingle[:1]))
        self._weights, self._holders = _alike(starts, holder, count)
        lengths = [len(one) for one in self._holders]
        kind = np.repeat(np.arange(len(lengths)), lengths)
        everyone = np.concatenate([np.empty(0, np.int64), *self._holders])
        self._kinds = kind[np.argsort(everyone, kind="stable")]
        self._ends = np.cumsum(np.bincount(everyone, minlength=count))

    def _in_question(
        self, shingle: NDArray[np.uint64], holder: Ints
    ) -> tuple[NDArray[np.uint64], Ints]:
        """The shingles, each with a text, of those texts alone that may be the same as another.

        What two texts have in common is at least `SAME` of the larger one: mostly no text has so
        many shingles that occur in any other, and nothing is left to compare.
        """
        first = np.diff(shingle, prepend=~shingle[:1]) != 0
        last = np.append(first, True)[1:]  # the next one is another
        shared = ~(first & last)
        enough = np.bincount(holder[shared], minlength=self._count) >= SAME * self._sizes
        kept = enough[holder]
        return shingle[kept], holder[kept]

    def same_as(self, place: int) -> Ints:
        """The texts that are the same as one, itself among them unless it shares nothing; int64."""
        size = self._sizes[place]
        if size == 0:  # no words: equal to all others without
            return np.flatnonzero(self._sizes == 0)
        kinds = self._kinds[self._ends[place - 1] if place else 0 : self._ends[place]]
        # What two texts have in common is at least this share of the larger one.
        if self._weights[kinds].sum() < SAME * size:
            return np.empty(0, np.int64)
        holders = [self._holders[kind] for kind in kinds]
        weights = np.repeat(self._weights[kinds], [len(one) for one in holders])
        common = np.bincount(np.concatenate(holders), weights, minlength=self._count)
        found: Ints = np.flatnonzero(common / (size + self._sizes - common) >= SAME)
        return found


def _alike(starts: Ints, holder: Ints, count: int) -> tuple[Ints, list[Ints]]:
    """Shingles of several texts by the set of these: how many there are, and the texts, ascending.

    holder: the texts of each shingle, ascending, one after another, the first of each at `starts`.
    """
    ends = np.append(starts[1:], len(holder))
    several = ends - starts > 1
    starts, ends = starts[several], ends[several]
    # A sum of random numbers, one for each text, stands for the set; sums of the whole, subtracted.
    numbers = np.random.default_rng(0).integers(2**63, size=count, dtype=np.uint64)
    sums = np.append(np.uint64(0), np.cumsum(numbers[holder]))
    _, first, weights = np.unique(sums[ends] - sums[starts], return_index=True, return_counts=True)
    return weights, [
        holder[start:end] for start, end in zip(starts[first], ends[first], strict=True)
    ]


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], Ints]:
    """Every shingle as a hash, ascending, with the place of a text that holds it, each pair once.

    A text of fewer than five words has one shingle, itself; an empty one has none. All texts are
    hashed in one go: calls for each of 200 would take longer than the work.
    """
    words = array("q")
    lengths = []
    for text in texts:
        before = len(words)
        words.extend(map(hash, _words(text)))
        if before < len(words) < before + _WORDS:
            words.extend([0] * (before + _WORDS - len(words)))
        lengths.append(len(words) - before)
    each = np.array(words, np.int64).view(np.uint64)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    windows = max(0, len(each) - _WORDS + 1)
    hashed = np.zeros(windows, np.uint64)
    for offset in range(_WORDS):
        hashed = hashed * _MULTIPLIER + each[offset : offset + windows]
    within = owner[:windows] == owner[len(each) - windows :]
    # Hash and text in one number, which is sorted much faster than two: the text in the low bits.
    bits = np.uint64(len(texts).bit_length())
    pairs = np.sort((hashed[within] >> bits << bits) | owner[:windows][within])
    pairs = pairs[np.diff(pairs, prepend=~pairs[:1]) != 0]
    return pairs >> bits, (pairs & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _words(text: str) -> list[str]:
    folded = text.casefold()
    return folded.split() if folded.isascii() else _WORD.findall(folded)
