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


def collapse(passages: Sequence[Passage]) -> list[tuple[Passage, tuple[Passage, ...]]]:
    """The passages (best first) without near-duplicates, each with those that it stands for.

    A passage goes behind the first kept one that it equals; so nothing is behind one that it does
    not itself resemble.
    """
    words = [_words(one.record.text) for one in passages]
    same = resemblance(words) >= SAME
    kept: list[int] = []
    behind: dict[int, list[Passage]] = {}
    for place, passage in enumerate(passages):
        first = next((one for one in kept if same[one, place] or words[one] == words[place]), None)
        if first is None:
            kept.append(place)
            behind[place] = []
        else:
            behind[first].append(passage)
    return [(passages[place], tuple(behind[place])) for place in kept]


def resemblance(texts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Jaccard index of the shingles of each text (its words) with each, float64 [n, n].

    A text of fewer than five words has one shingle, itself; an empty one has none.
    """
    owner, shingle = _shingles(texts)
    distinct, column = np.unique(shingle, return_inverse=True)
    # One that a text repeats counts once in it.
    owner, column = np.divmod(np.unique(owner * len(distinct) + column), max(1, len(distinct)))
    sizes = np.bincount(owner, minlength=len(texts)).astype(np.float64)
    # Nearly all shingles are of one text alone, and of no matter to any other.
    shared = np.bincount(column, minlength=len(distinct))[column] > 1
    used, column = np.unique(column[shared], return_inverse=True)
    holds = np.zeros((len(texts), len(used)), np.float32)
    holds[owner[shared], column] = 1.0
    common = (holds @ holds.T).astype(np.float64)
    np.fill_diagonal(common, sizes)
    either = sizes[:, None] + sizes[None, :] - common
    return np.divide(common, either, out=np.zeros_like(common), where=either > 0)


def _shingles(texts: Sequence[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The shingles of each text: the text's place, and the shingle as a 64-bit hash.

    All texts are hashed in one go: calls for each of 200 would take longer than the work.
    """
    numbers: dict[str, int] = {}
    words: list[int] = []
    lengths = []
    for text in texts:
        words += [numbers.setdefault(word, len(numbers) + 1) for word in text]
        missing = max(0, _WORDS - len(text)) if text else 0
        words += [0] * missing
        lengths.append(len(text) + missing)
    each = np.asarray(words, np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    windows = max(0, len(each) - _WORDS + 1)
    hashed = np.zeros(windows, np.uint64)
    for offset in range(_WORDS):
        hashed = hashed * _MULTIPLIER + each[offset : offset + windows]
    within = owner[:windows] == owner[len(each) - windows :]
    return owner[:windows][within], hashed[within]


def _words(text: str) -> list[str]:
    folded = text.casefold()
    return folded.split() if folded.isascii() else _WORD.findall(folded)
