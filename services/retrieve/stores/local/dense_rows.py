"""The vectors of a local corpus in memory, by key: what every score is computed from.

Keys are handed out in ascending order and never again (see database.py), so rows are appended only,
and a row that is there never changes. They lie in blocks: none is ever copied in order to grow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector

Keys = NDArray[np.int64]

_LEAST_BLOCK = 8192  # rows
_PART = 4096  # rows gathered at a time: 6 MiB of 384 numbers each stay in the processor's cache


@dataclass
class _Block:
    """Rows with ascending keys; arrays as long as its capacity, of which `count` are in use."""

    keys: Keys
    vectors: Vector
    alive: NDArray[np.bool_]
    count: int
    live: int

    def places(self, keys: Keys) -> NDArray[np.intp]:
        """Where those of the ascending `keys` lie that are here."""
        if self.count == 0:
            return np.empty(0, np.intp)
        own = self.keys[: self.count]
        part = keys[slice(*np.searchsorted(keys, (own[0], own[-1] + 1)))]
        places = np.searchsorted(own, part)
        found: NDArray[np.intp] = places[(own[places] == part) & self.alive[places]]
        return found

    def living(self) -> NDArray[np.intp]:
        """Where the rows lie that have not been removed."""
        return np.flatnonzero(self.alive[: self.count])


class VectorRows:
    """Unit vectors float32 [n, dimension] by key.

    Reading is safe beside one change. A reader that needs one state for several calls keeps changes
    away for that long.
    """

    def __init__(self, dimension: int, keys: Keys, vectors: Vector, last_key: int = -1) -> None:
        """Take over ascending keys int64 [n] and vectors float32 [n, dimension], uncopied.

        last_key: the highest that was ever handed out, where that may be above those in `keys`.
        """
        self.dimension = dimension
        self._blocks: tuple[_Block, ...] = ()
        if len(keys):
            count = len(keys)
            self._blocks = (_Block(keys, vectors, np.ones(count, np.bool_), count, count),)
        self._last = max(last_key, int(keys[-1]) if len(keys) else -1)

    def __len__(self) -> int:
        return sum(block.live for block in self._blocks)

    @property
    def end(self) -> int:
        """One more than the highest key there ever was."""
        return self._last + 1

    def keys(self, start: int = 0) -> Keys:
        """All keys from `start` on, ascending."""
        found = [np.empty(0, np.int64)]
        for block in self._blocks:
            own = block.keys[: block.count]
            if len(own) and own[-1] >= start:  # the count may have changed by now
                first = int(np.searchsorted(own, start))
                found.append(own[first:][block.alive[first : len(own)]])
        return np.concatenate(found)

    def append(self, keys: Keys, vectors: Vector) -> None:
        """Add rows. Raises ValueError unless the keys ascend from above all there ever were."""
        if not len(keys):
            return
        if keys[0] <= self._last or (np.diff(keys) <= 0).any():
            raise ValueError("keys must ascend, and none may be used again")
        block = self._blocks[-1] if self._blocks else None
        if block is None or block.count + len(keys) > len(block.keys):
            # The system gives memory for the part that is written, so what is too much costs none.
            block = self._empty(max(_LEAST_BLOCK, len(keys), len(self) // 8))
            self._blocks = (*self._blocks, block)
        end = block.count + len(keys)
        block.keys[block.count : end] = keys
        block.vectors[block.count : end] = vectors
        block.alive[block.count : end] = True
        block.live += len(keys)
        block.count = end
        self._last = int(keys[-1])

    def remove(self, keys: Keys) -> None:
        """Remove rows by their ascending keys; unknown ones are passed over."""
        for block in self._blocks:
            places = block.places(keys)
            block.alive[places] = False
            block.live -= len(places)

    def compact(self) -> None:
        """Give back the memory of blocks that are more than half removed.

        It copies beside the readers, who keep the block they have; changes must wait.
        """
        self._blocks = tuple(self._compacted(block) for block in self._blocks if block.live)

    def take(self, keys: Keys) -> tuple[Keys, Vector]:
        """Those of the ascending `keys` that are here, and their vectors float32 [n, dimension]."""
        found, vectors = [np.empty(0, np.int64)], [np.empty((0, self.dimension), np.float32)]
        for block in self._blocks:
            places = block.places(keys)
            found.append(block.keys[places])
            vectors.append(block.vectors[places])
        return np.concatenate(found), np.concatenate(vectors)

    def scores(self, vector: Vector, keys: Keys | None) -> tuple[Keys, Vector]:
        """The keys, of the ascending `keys` or of all, that are here, and their cosines."""
        found, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for block in self._blocks:
            if keys is None and block.live == block.count:
                # One product a row, unlike a matrix product, gives a row the same sum wherever it
                # stands: the scores of a list are those of chosen keys to the last bit.
                found.append(block.keys[: block.count])
                scores.append(np.vecdot(block.vectors[: block.count], vector))
                continue
            places = block.living() if keys is None else block.places(keys)
            found.append(block.keys[places])
            scores.extend(
                np.vecdot(block.vectors[places[start : start + _PART]], vector)
                for start in range(0, len(places), _PART)
            )
        return np.concatenate(found), np.concatenate(scores)

    def _empty(self, capacity: int) -> _Block:
        return _Block(
            np.empty(capacity, np.int64),
            np.empty((capacity, self.dimension), np.float32),
            np.zeros(capacity, np.bool_),
            0,
            0,
        )

    @staticmethod
    def _compacted(block: _Block) -> _Block:
        if block.live * 2 >= block.count:
            return block
        living = block.living()
        count = len(living)
        return _Block(
            block.keys[living], block.vectors[living], np.ones(count, np.bool_), count, count
        )


def parts(keys: Keys, size: int) -> Iterator[Keys]:
    """`keys` in parts of at most `size`."""
    return (keys[start : start + size] for start in range(0, len(keys), size))
