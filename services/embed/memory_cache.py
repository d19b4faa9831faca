"""Vectors in memory, up to a number of bytes; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.embed.models.base import Vectors

# A key, its place and their share of the dictionary, also while that grows.
_ENTRY_BYTES = 384
_BLOCK_BYTES = 1024 * 1024
_NUMBERS = 128  # in a cell: the dimensions of most models are multiples of it
_CELL = np.dtype(
    [
        ("numbers", np.float32, (_NUMBERS,)),
        ("next", np.int32),
        ("dimension", np.int32),
        ("tokens", np.int32),
        ("cut", np.int32),
    ]
)
_NONE = -1


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

    The vectors, of whatever dimensions, lie in chains of equal cells, and the cells in blocks that
    are never freed: one small array each would leave the heap in pieces that the process can't give
    back.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._block_cells = max(1, min(_BLOCK_BYTES, max_bytes // 16) // _CELL.itemsize)
        self._blocks: list[NDArray[np.void]] = []
        self._first_cells: OrderedDict[bytes, int] = OrderedDict()
        self._free = _NONE  # the first of the chain of free cells
        self._free_cells = 0

    @property
    def nbytes(self) -> int:
        """What is held now."""
        cells = len(self._blocks) * self._block_cells
        return cells * _CELL.itemsize + len(self._first_cells) * _ENTRY_BYTES

    def get(self, key: bytes) -> Known | None:
        """A copy of what is kept under the key, which then counts as just used."""
        first = self._first_cells.get(key)
        if first is None:
            return None
        self._first_cells.move_to_end(key)
        head = self._cell(first)
        vector = np.empty(int(head["dimension"]), np.float32)
        for part, cell in zip(_parts(vector), self._chain(first, len(vector)), strict=True):
            part[:] = cell["numbers"][: len(part)]
        return Known(vector, int(head["tokens"]), int(head["cut"]))

    def put(self, key: bytes, known: Known) -> None:
        """Keep it, in the place of the least recently used where there is no room."""
        if key in self._first_cells:
            self._forget(key)
        dimension = len(known.vector)
        while not self._has_room(_cells(dimension)):
            if not self._first_cells:
                return
            self._forget(next(iter(self._first_cells)))
        self._first_cells[key] = self._free
        chain = self._chain(self._free, dimension)
        for part, cell in zip(_parts(known.vector), chain, strict=True):
            cell["numbers"][: len(part)] = part
            cell["dimension"], cell["tokens"], cell["cut"] = dimension, known.tokens, known.cut
            self._free = int(cell["next"])
        self._free_cells -= _cells(dimension)

    def _has_room(self, cells: int) -> bool:
        """Whether one more vector of so many cells fits; adds blocks as far as the limit lets."""
        left = self._max_bytes - self.nbytes - _ENTRY_BYTES
        block_bytes = self._block_cells * _CELL.itemsize
        while self._free_cells < cells and left >= block_bytes:
            self._add_block()
            left -= block_bytes
        return left >= 0 and self._free_cells >= cells

    def _add_block(self) -> None:
        first = len(self._blocks) * self._block_cells
        block = np.empty(self._block_cells, _CELL)
        block["next"] = np.arange(first + 1, first + 1 + self._block_cells)
        block["next"][-1] = self._free
        self._blocks.append(block)
        self._free = first
        self._free_cells += self._block_cells

    def _forget(self, key: bytes) -> None:
        """Put the cells of a key before those that are free."""
        first = self._first_cells.pop(key)
        dimension = int(self._cell(first)["dimension"])
        *_, last = self._chain(first, dimension)
        last["next"] = self._free
        self._free = first
        self._free_cells += _cells(dimension)

    def _chain(self, first: int, dimension: int) -> Iterator[np.void]:
        """The cells of a vector."""
        number = first
        for _ in range(_cells(dimension)):
            cell = self._cell(number)
            yield cell
            number = int(cell["next"])

    def _cell(self, number: int) -> np.void:
        block, place = divmod(number, self._block_cells)
        cell: np.void = self._blocks[block][place]
        return cell


def _cells(dimension: int) -> int:
    """How many cells a vector takes."""
    return -(-dimension // _NUMBERS)


def _parts(vector: Vectors) -> list[Vectors]:
    """The vector's numbers, cell by cell."""
    return [vector[start : start + _NUMBERS] for start in range(0, len(vector), _NUMBERS)]
