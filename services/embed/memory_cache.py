"""Vectors in memory, up to a number of bytes; the least recently used go first."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from services.embed.models.base import Vectors

# A key, its place and their share of the dictionary, also while that grows.
_ENTRY_BYTES = 384
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Known:
    """What is kept of a text: its vector, float32 [d], and what the answer tells about it.

    tokens: that the model read, special ones included. cut: that did not fit its window.
    """

    vector: Vectors
    tokens: int
    cut: int


class MemoryCache:
    """Holds `max_bytes` at most, its own costs counted. Used from the event loop only.

    The vectors lie in blocks that are never freed: one small array each would leave the heap in
    pieces that the process can't give back.
    """

    def __init__(self, max_bytes: int, dimension: int) -> None:
        self._row = np.dtype(
            [("vector", np.float32, (dimension,)), ("tokens", np.int32), ("cut", np.int32)]
        )
        self._capacity = max_bytes // (self._row.itemsize + _ENTRY_BYTES)
        self._block_rows = max(1, _BLOCK_BYTES // self._row.itemsize)
        self._blocks: list[np.ndarray] = []
        self._places: OrderedDict[bytes, int] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is held now."""
        blocks = sum(block.nbytes for block in self._blocks)
        return blocks + len(self._places) * _ENTRY_BYTES

    def get(self, key: bytes) -> Known | None:
        """A copy of what is kept under the key, which then counts as just used."""
        place = self._places.get(key)
        if place is None:
            return None
        self._places.move_to_end(key)
        row = self._row_at(place)
        return Known(row["vector"].copy(), int(row["tokens"]), int(row["cut"]))

    def put(self, key: bytes, known: Known) -> None:
        """Keep it, in the place of the least recently used where there is no room."""
        if not self._capacity:
            return
        place = self._places.pop(key, None)
        if place is None and len(self._places) == self._capacity:
            _, place = self._places.popitem(last=False)
        if place is None:
            place = len(self._places)
        self._places[key] = place
        row = self._row_at(place)
        row["vector"], row["tokens"], row["cut"] = known.vector, known.tokens, known.cut

    def _row_at(self, place: int) -> np.void:
        """The row of a place; a place just beyond the last block gets a new one."""
        block, number = divmod(place, self._block_rows)
        if block == len(self._blocks):
            rows = min(self._block_rows, self._capacity - place)
            self._blocks.append(np.empty(rows, self._row))
        row: np.void = self._blocks[block][number]
        return row
