"""The vectors of all chunks as they are read from a corpus's database, to make an index of.

Each function raises WrongSumError where a vector is not what was written, and ValueError where one
does not fit its chunk, or a chunk has none.
"""

import sqlite3

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.local.sparse_rows import SparseRows
from services.retrieve.stores.local.sums import require_sum, vector_sum

_PART = 4096  # rows read at a time


def vectors(db: sqlite3.Connection, info: CorpusInfo) -> tuple[NDArray[np.int64], Vector]:
    """Keys int64 [n], ascending, and float32 [n, dimension]; `info` is of the same state."""
    keys = np.empty(info.chunks, np.int64)
    matrix = np.empty((info.chunks, info.dimension), np.float32)
    at = 0
    rows = db.execute("SELECT key, vector, checksum FROM vectors ORDER BY key")
    while part := rows.fetchmany(_PART):
        for key, vector, checksum in part:
            require_sum(checksum, vector_sum(key, vector), f"the vector of chunk {key}")
        keys[at : at + len(part)] = [key for key, _, _ in part]
        data = np.frombuffer(b"".join(vector for _, vector, _ in part), "<f4")
        matrix[at : at + len(part)] = data.reshape(len(part), info.dimension)
        at += len(part)
    if at != info.chunks:
        raise ValueError("a chunk has no vector")
    return keys, matrix


def sparse_vectors(db: sqlite3.Connection, info: CorpusInfo) -> SparseRows:
    """The same of the sparse vectors of a corpus that has them."""
    parts = []
    rows = db.execute("SELECT key, weights, checksum FROM sparse_vectors ORDER BY key")
    while part := rows.fetchmany(_PART):
        for key, weights, checksum in part:
            require_sum(checksum, vector_sum(key, weights), f"the sparse vector of chunk {key}")
        parts.append(SparseRows.unpacked([(key, weights) for key, weights, _ in part]))
    found = SparseRows.joined(parts)
    if len(found.keys) != info.chunks:
        raise ValueError("a chunk has no sparse vector")
    return found
