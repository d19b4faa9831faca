"""The index of sparse vectors of a local corpus: inverted lists in memory, exact.

The score of a chunk is the dot product with the query's vector. A search reads the lists of the
query's tokens alone, each of which names the chunks that have the token, with their weights.

A write adds a small segment with lists of its own, which is quick. Afterwards neighbouring segments
are merged as long as one is not twice the size of the next, so that there are few of them, and a
chunk is moved about as often as the corpus doubles; that may take seconds, and changes nothing that
is found. What is there never changes: a search takes the segments of one moment and goes on with
them, whatever is written or merged meanwhile.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.local.best import best
from services.retrieve.stores.local.sparse_rows import SparseRows
from services.retrieve.stores.sparse_vector import Sparse, Tokens, Weights

Keys = NDArray[np.int64]
Scores = NDArray[np.float64]
_Number = TypeVar("_Number", bound=np.generic)

# Of so many chunks one is looked up in a list about as fast as they are all added up.
_FEW = 32


@dataclass(frozen=True)
class _Segment:
    """Lists of some chunks, which have ascending keys int64 [n].

    The list of `tokens[t]` (int32 [t], ascending) is from `ends[t]` to `ends[t + 1]` of `places`,
    int32 [m], ascending in a list, where the chunks lie among the keys, and of `weights`, float32
    [m]. living: bool [n], which chunks have not been removed.
    """

    keys: Keys
    living: NDArray[np.bool_]
    tokens: Tokens
    ends: NDArray[np.int64]
    places: NDArray[np.int32]
    weights: Weights

    @classmethod
    def of(
        cls, keys: Keys, places: NDArray[np.int32], tokens: Tokens, weights: Weights
    ) -> "_Segment":
        """The lists of weights float32 [m], each of a token and of the chunk at a place; those of
        one token come in the order of their places."""
        # One sort of whole numbers is several times faster than a stable sort of places.
        # These arrays are large: they are changed in place, or let go of when they have served.
        order = np.left_shift(tokens, 32, dtype=np.int64)
        order |= np.arange(len(tokens), dtype=np.uint32)
        order.sort()
        order &= 0xFFFFFFFF
        tokens = tokens[order]
        first = np.ones(len(tokens), np.bool_)
        np.not_equal(tokens[1:], tokens[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        listed, ends = tokens[starts], np.append(starts, len(tokens))
        del tokens, first
        places = places[order]
        weights = weights[order]
        return cls(keys, np.ones(len(keys), np.bool_), listed, ends, places, weights)

    @property
    def size(self) -> int:
        """What it takes to move it."""
        return len(self.keys) + len(self.places)

    @property
    def hollow(self) -> bool:
        """Whether more than half of its chunks have been removed."""
        return 2 * int(np.count_nonzero(self.living)) < len(self.keys)

    def without(self, keys: Keys) -> "_Segment":
        """The same with some chunks removed, by their ascending keys."""
        gone = self.find(keys)
        if not len(gone):
            return self
        living = self.living.copy()
        living[gone] = False
        return replace(self, living=living)

    def find(self, keys: Keys) -> NDArray[np.intp]:
        """Where those of the ascending `keys` lie that are here and living."""
        if not len(self.keys):
            return np.empty(0, np.intp)
        near = keys[slice(*np.searchsorted(keys, (self.keys[0], self.keys[-1] + 1)))]
        places = np.searchsorted(self.keys, near)
        found: NDArray[np.intp] = places[(self.keys[places] == near) & self.living[places]]
        return found

    def scores(self, query: Sparse, places: NDArray[np.intp] | None) -> Scores:
        """The scores of the chunks at some places, or (None) of all, 0.0 of removed ones; float64,
        0.0 of chunks without a token of the query.

        Token after token in ascending order, so that a chunk's sum is the same in every segment.
        """
        # As wide as those that they are looked up in, which would be copied else.
        wanted = np.empty(0, np.int32) if places is None else places.astype(np.int32)
        few = places is not None and len(wanted) * _FEW < len(self.keys)
        scores = np.zeros(len(wanted) if few else len(self.keys))
        lists = np.searchsorted(self.tokens, query.tokens)
        for token, query_weight, at in zip(query.tokens, query.weights, lists, strict=True):
            if at == len(self.tokens) or self.tokens[at] != token:
                continue
            own = slice(self.ends[at], self.ends[at + 1])
            there, weights = self.places[own], self.weights[own]
            if few:
                near = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
                have = there[near] == wanted
                scores[have] += np.float64(query_weight) * weights[near[have]]
            else:
                scores[there] += np.float64(query_weight) * weights
        if places is None:
            scores[~self.living] = 0.0
        return scores[places] if places is not None and not few else scores


class SparseIndex:
    """Sparse vectors by key. Safe to use from several threads; no search waits for a change or a
    merge, while these wait for each other."""

    def __init__(self, rows: SparseRows) -> None:
        """An index of these vectors."""
        self._changing = threading.Lock()
        self._segments: tuple[_Segment, ...] = _stacked([_segment(rows)])

    def change(self, remove: Sequence[int], keys: Sequence[int], vectors: Sequence[Sparse]) -> None:
        """Remove the vectors of some keys and add others, quickly: `merge` is to be called later,
        as searches become slower with each change until it is.

        Raises ValueError, and changes nothing, where there is not a vector for each key or a key is
        not above all that are there.
        """
        added = _segment(SparseRows.of(keys, vectors))
        gone = np.unique(np.asarray(remove, np.int64))
        with self._changing:
            last = [one.keys[-1:] for one in self._segments]
            if (np.diff(np.concatenate([*last, added.keys])) <= 0).any():
                raise ValueError("keys must ascend, and none may be used again")
            left = (one.without(gone) for one in self._segments)
            self._segments = (*left, added) if len(added.keys) else tuple(left)

    def merge(self) -> None:
        """Bring what was changed together, so that searches are fast; they find the same.

        Nothing has changed where this raises, as it may for want of memory.
        """
        with self._changing:
            self._segments = _stacked(self._segments)

    def keys(self) -> Keys:
        """All keys, ascending."""
        none = np.empty(0, np.int64)
        return np.concatenate([none, *(one.keys[one.living] for one in self._segments)])

    def search(
        self, query: Sparse, limit: int, allowed: Keys | None = None
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, score > 0), best first, equal scores by ascending key.

        allowed: ascending keys int64; no other is given, and as many as there are.
        """
        keys, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for segment in self._segments:
            places = None if allowed is None else segment.find(allowed)
            found = segment.scores(query, places)
            some = np.flatnonzero(found)
            keys.append(segment.keys[some if places is None else places[some]])
            scores.append(found[some])
        return best(np.concatenate(keys), np.concatenate(scores), limit) if limit > 0 else []

    def scores(self, query: Sparse, keys: Sequence[int]) -> dict[int, float]:
        """The scores of given keys, 0.0 where no token is shared; unknown keys are absent."""
        wanted = np.unique(np.asarray(keys, np.int64))
        found: dict[int, float] = {}
        for segment in self._segments:
            places = segment.find(wanted)
            own = segment.scores(query, places)
            found.update(zip(segment.keys[places].tolist(), own.tolist(), strict=True))
        return found


def _segment(rows: SparseRows) -> _Segment:
    places = np.repeat(np.arange(len(rows.keys), dtype=np.int32), rows.lengths)
    return _Segment.of(rows.keys, places, rows.tokens, rows.weights)


def _stacked(segments: Sequence[_Segment]) -> tuple[_Segment, ...]:
    """The segments, each more than twice the size of the next; of those that have lost more than
    half of their chunks the rest."""
    stack: list[_Segment] = []
    for one in segments:
        segment = _merged([one]) if one.hollow else one
        while stack and stack[-1].size <= 2 * segment.size:
            segment = _merged([stack.pop(), segment])
        if len(segment.keys):
            stack.append(segment)
    return tuple(stack)


def _merged(segments: Sequence[_Segment]) -> _Segment:
    """One segment of the living chunks of several, in the order of their keys."""
    keys, places, tokens, weights = [], [], [], []
    count = 0
    for segment in segments:
        kept = segment.living[segment.places]
        moved = np.cumsum(segment.living, dtype=np.int32) + np.int32(count - 1)
        keys.append(segment.keys[segment.living])
        places.append(moved[segment.places[kept]])
        tokens.append(np.repeat(segment.tokens, np.diff(segment.ends))[kept])
        weights.append(segment.weights[kept])
        count += len(keys[-1])
    return _Segment.of(_joined(keys), _joined(places), _joined(tokens), _joined(weights))


def _joined(parts: list[NDArray[_Number]]) -> NDArray[_Number]:
    """The parts as one array; the list is empty then, which lets go of them."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole
