"""The vector index of a local corpus: exact search by FAISS, in memory.

It is not kept on disk. The vectors are in the corpus's database anyway; a second copy would have to
be checked against them, and reading 100,000 of them takes about a second
(tests/bench/local_store.py).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector

Keys = NDArray[np.int64]


class DenseIndex:
    """Unit vectors by key. Any number of searches at once; a change waits for them to end."""

    def __init__(self, dimension: int) -> None:
        """An empty index of vectors float32 [dimension]."""
        self._dimension = dimension
        # The one line to change for an approximate index above some size.
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._access = _SharedLock()

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def change(self, remove: Sequence[int], keys: Sequence[int] | Keys, vectors: Vector) -> None:
        """Remove the vectors of some keys and add others, float32 [len(keys), dimension]."""
        with self._access.exclusive():
            if remove:
                # The array outlives the call: FAISS' selector only points at it.
                gone = np.asarray(remove, np.int64)
                self._index.remove_ids(faiss.IDSelectorBatch(gone))
            if len(keys):
                self._index.add_with_ids(
                    np.ascontiguousarray(vectors, np.float32), np.asarray(keys, np.int64)
                )

    def search(self, vector: Vector, limit: int) -> list[tuple[int, float]]:
        """At most `limit` (key, cosine), best first, equal scores by ascending key.

        Raises ValueError where `vector` is not a finite float32 [dimension].
        """
        return self._search(vector, limit, None)

    def scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """The cosines of given keys; unknown ones are absent. Raises ValueError as `search`."""
        if not keys:
            return {}
        wanted = np.asarray(keys, np.int64)
        # FAISS' stubs don't know the keyword arguments that its Python layer adds.
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(wanted))  # type: ignore[call-arg]
        return dict(self._search(vector, len(wanted), parameters))

    def _search(
        self, vector: Vector, limit: int, parameters: "faiss.SearchParameters | None"
    ) -> list[tuple[int, float]]:
        row = np.ascontiguousarray(vector, np.float32).reshape(1, -1)
        if row.shape[1] != self._dimension:
            raise ValueError(f"a vector of {row.shape[1]} numbers, not {self._dimension}")
        if not np.isfinite(row).all():
            raise ValueError("a vector with NaN or infinity")
        with self._access.shared():
            count = min(limit, len(self))
            if count == 0:
                return []
            # A thread's own setting, so it is made here. A second thread gains nothing for one
            # query, waits long on a busy machine, and rounds other sums otherwise than the first.
            faiss.omp_set_num_threads(1)
            scores, keys = self._index.search(row, count, params=parameters)
        hits = [
            (int(key), float(score))
            for key, score in zip(keys[0], scores[0], strict=True)
            if key >= 0
        ]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


class _SharedLock:
    """Many readers or one writer; a waiting writer goes before later readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._changed:
            self._writers_waiting += 1
            self._changed.wait_for(lambda: not self._writing and not self._readers)
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
