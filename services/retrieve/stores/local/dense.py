"""The vector index of a local corpus: exact while it is small, above that from candidates.

The vectors are in memory, and every score is computed from them. In a large corpus only candidates
are scored: those that the codes in dense_lists.py (or a GPU, dense_gpu.py) find near to the query,
and the newest vectors, which are not in there yet. So what is searched is always the present state:
a write changes the vectors alone and takes no time for it, and a thread in the background brings
the candidates' index after it, learns it anew when the corpus has outgrown it, and saves it. Where
that fails, the search goes on with what there is and the thread tries again after a rest.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.best import best
from services.retrieve.stores.local.dense_file import (
    ListsDamagedError,
    fits,
    load,
    packed,
    save,
)
from services.retrieve.stores.local.dense_gpu import OnGpu, Place
from services.retrieve.stores.local.dense_lists import Lists, sample_size
from services.retrieve.stores.local.dense_rows import Keys, VectorRows
from services.retrieve.stores.local.shared_lock import SharedLock
from shared.telemetry import get_logger

EXACT = 20_000  # vectors that are all scored: 2.5 ms for 384 numbers each
_TAIL = 2048  # newest vectors that are all scored before they go into the lists
_STEP = 256  # vectors that go into them while searches wait: about 5 ms
_PAUSE_S = 0.01  # between two such steps, for the searches
_FILL = 8192  # vectors that go into lists that nobody searches yet
_GROWTH = 2.5  # times the size that lists were made for
_REST_S = 1.0  # after a failure in the background; after each further one twice as long,
_LONGEST_REST_S = 3600.0  # up to this
_SEED = 1234

log = get_logger(__name__)


class DenseIndex:
    """Unit vectors by key. Any number of searches at once; a change waits for them to end."""

    def __init__(
        self,
        dimension: int,
        keys: Keys | None = None,
        vectors: Vector | None = None,
        *,
        last_key: int = -1,
        folder: Path | None = None,
        place: Place | None = None,
        exact: int = EXACT,
    ) -> None:
        """An index of ascending keys int64 [n] and vectors float32 [n, dimension], taken over.

        last_key: the highest that was ever handed out, where that may be above those in `keys`.
        folder: where the lists of a large corpus are kept; None: in memory alone. place: puts the
        candidates' index on a GPU. exact: up to so many vectors all are scored.
        """
        if keys is None or vectors is None:
            keys, vectors = np.empty(0, np.int64), np.empty((0, dimension), np.float32)
        self._rows = VectorRows(dimension, keys, vectors, last_key)
        self._folder = folder
        self._place = place
        self._exact = exact
        self._lists: Lists | OnGpu | None = None
        self._build_at = exact + 1  # vectors
        self._changed = 0  # vectors, ever
        self._saved = 0  # how many had changed when the lists were saved
        self._access = SharedLock()
        self._changing = threading.Lock()
        self._starting = threading.Lock()
        self._tender: threading.Thread | None = None  # which alone changes and writes the lists
        self._closed = threading.Event()
        if len(self._rows) > exact and folder is not None and place is None:
            self._load(folder)
        self._wake()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def method(self) -> str:
        """How a search without a filter finds its results now: what `explain` says."""
        lists = self._lists
        return "exact" if lists is None else lists.method

    def change(self, remove: Sequence[int], keys: Sequence[int] | Keys, vectors: Vector) -> None:
        """Remove the vectors of some keys and add others, float32 [len(keys), dimension].

        Raises ValueError, and changes nothing, where a vector has another dimension or is not
        finite, or a key is not above all there ever were.
        """
        gone = np.unique(np.asarray(remove, np.int64))
        new = np.asarray(keys, np.int64)
        rows = np.ascontiguousarray(vectors, np.float32)
        if len(new) and rows.shape != (len(new), self._rows.dimension):
            raise ValueError(f"vectors {rows.shape}, not {(len(new), self._rows.dimension)}")
        if not np.isfinite(rows).all():
            raise ValueError("a vector with NaN or infinity")
        with self._changing:
            with self._access.exclusive():
                self._rows.append(new, rows)
                self._rows.remove(gone)
            with suppress(MemoryError):  # it gives back some another time
                self._rows.compact()
            self._changed += len(gone) + len(new)
        self._wake()

    def search(
        self, vector: Vector, limit: int, allowed: Keys | None = None
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, cosine), best first, equal scores by ascending key.

        allowed: ascending keys int64; no other is given, and as many as there are. Raises
        ValueError where `vector` is not a finite float32 [dimension].
        """
        row = self._checked(vector)
        if limit <= 0:
            return []
        with self._access.shared():
            near = self._candidates(row, limit, allowed)
            keys, scores = self._rows.scores(row, near)
            if near is not allowed and len(keys) < limit:
                keys, scores = self._rows.scores(row, allowed)
        return best(keys, scores, limit)

    def scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """The cosines of given keys; unknown ones are absent. Raises ValueError as `search`."""
        row = self._checked(vector)
        with self._access.shared():
            found, scores = self._rows.scores(row, np.unique(np.asarray(keys, np.int64)))
        return dict(zip(found.tolist(), scores.tolist(), strict=True))

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """The unit vectors float32 [dimension] of given keys; unknown ones are absent."""
        with self._access.shared():
            found, vectors = self._rows.take(np.unique(np.asarray(keys, np.int64)))
        return dict(zip(found.tolist(), vectors, strict=True))

    def keys(self) -> Keys:
        """All keys, ascending."""
        with self._access.shared():
            return self._rows.keys()

    def settle(self, timeout_s: float | None = None) -> None:
        """Wait until the work in the background has ended."""
        tender = self._tender
        if tender is not None:
            tender.join(timeout_s)

    def close(self, *, keep: bool = True) -> None:
        """Save what a later opening would have to do again, unless there will be none (`keep`);
        afterwards the folder is left alone.

        Waits for the step that the background is at; the longest, to learn the lists of a million
        vectors, takes about 10 s. Searches go on; closing twice is harmless.
        """
        with self._starting:
            if self._closed.is_set():
                return
            self._closed.set()
        self.settle()
        if not keep or self._changed == self._saved:
            return
        try:
            self._save()
        except Exception as error:  # for want of memory; what else is open is to be closed yet
            log.exception("dense_lists_failed", reason=str(error))

    def _checked(self, vector: Vector) -> Vector:
        row = np.ascontiguousarray(vector, np.float32).reshape(-1)
        if len(row) != self._rows.dimension:
            raise ValueError(f"a vector of {len(row)} numbers, not {self._rows.dimension}")
        if not np.isfinite(row).all():
            raise ValueError("a vector with NaN or infinity")
        return row

    def _candidates(self, row: Vector, limit: int, allowed: Keys | None) -> Keys | None:
        """Ascending keys, among them most of the best; `allowed` itself where all are scored."""
        lists = self._lists
        if lists is None or (allowed is not None and len(allowed) <= self._exact):
            return allowed
        near = lists.search(row, limit, allowed)
        newest = (
            self._rows.keys(lists.end)
            if allowed is None
            else allowed[np.searchsorted(allowed, lists.end) :]
        )
        return np.concatenate((np.sort(near), newest))

    def _wake(self) -> None:
        """Have the background do what there is to do, if anything."""
        with self._starting:
            try:
                if self._tender is None and self._next() is not None:
                    # Not waited for when the process just ends: learning lists can take long.
                    tender = threading.Thread(target=self._tend, name="dense-lists", daemon=True)
                    tender.start()
                    self._tender = tender
            except Exception as error:  # no thread to be had; the next write tries again
                log.exception("dense_lists_failed", reason=str(error))

    def _tend(self) -> None:
        rest = _REST_S
        try:
            while True:
                try:
                    with self._starting:
                        work = self._next()
                        if work is None:
                            self._tender = None
                            return
                    work()
                    rest = _REST_S
                except Exception as error:  # whatever it was, searches go on without
                    log.exception("dense_lists_failed", reason=str(error), rest_s=rest)
                    self._closed.wait(rest)
                    rest = min(2 * rest, _LONGEST_REST_S)
        except BaseException:
            self._tender = None
            raise

    def _next(self) -> Callable[[], None] | None:
        """What the background should do next."""
        count, lists = len(self._rows), self._lists
        if self._closed.is_set():
            return None
        if count >= self._build_at:
            return self._build
        if lists is None:
            return None
        if count <= self._exact // 2:
            return self._drop
        newest = len(self._rows.keys(lists.end))
        if newest > _TAIL:
            return self._extend
        if len(lists) - (count - newest) > max(_TAIL, count // 20):
            return self._prune if isinstance(lists, Lists) else self._build
        return self._save if (self._changed - self._saved) * 10 >= count else None

    def _build(self) -> None:
        """Learn the index of candidates anew, beside the one that is searched."""
        keys = self._rows.keys()
        size = min(sample_size(len(keys)), len(keys))
        picked = np.random.default_rng(_SEED).choice(keys, size, replace=False)
        _, sample = self._rows.take(np.sort(picked))
        made = (
            OnGpu(self._place, sample, len(keys)) if self._place else Lists.train(sample, len(keys))
        )
        while len(new := self._rows.keys(made.end)) > _TAIL or not made.end:
            if self._closed.is_set():
                return
            self._move(new[:_FILL], made)
        with self._access.exclusive():
            self._lists = made
        self._build_at = int(_GROWTH * len(keys))
        self._saved = self._changed - len(self._rows)

    def _extend(self) -> None:
        """Bring the newest vectors into the lists, a few at a time."""
        lists = self._lists
        while lists is not None and not self._closed.is_set():
            keys = self._rows.keys(lists.end)
            if len(keys) < _STEP:
                return
            with self._altering():
                self._move(keys[:_STEP], lists)
            time.sleep(_PAUSE_S)

    def _move(self, keys: Keys, lists: Lists | OnGpu) -> None:
        if len(keys):
            lists.add(*self._rows.take(keys))
        lists.end = int(keys[-1]) + 1 if len(keys) else self._rows.end

    def _prune(self) -> None:
        """Take removed vectors out of the lists; until then they were candidates in vain."""
        lists = self._lists
        if isinstance(lists, Lists):
            gone = np.setdiff1d(lists.keys(), self._rows.keys(), assume_unique=True)
            with self._altering():
                lists.remove(gone)

    @contextmanager
    def _altering(self) -> Iterator[None]:
        """To change the lists that are searched. Half changed they could answer a key twice, so
        where it fails all vectors are scored until others are learned."""
        with self._access.exclusive():
            try:
                yield
            except BaseException:
                self._forget()
                raise

    def _drop(self) -> None:
        """Score all vectors again, once there are few."""
        with self._access.exclusive():
            self._forget()

    def _forget(self) -> None:
        self._lists = None
        self._build_at = self._exact + 1

    def _save(self) -> None:
        """Write the lists to the folder, if they are kept there."""
        lists, changed = self._lists, self._changed
        if self._folder is not None and isinstance(lists, Lists):
            try:
                save(self._folder, packed(lists, self._rows))
            except OSError as error:
                # They are learned again on the next opening.
                log.warning("dense_lists_not_saved", folder=str(self._folder), reason=str(error))
        self._saved = changed

    def _load(self, folder: Path) -> None:
        """Take the saved lists where they are sound and belong to these vectors."""
        try:
            saved = load(folder, self._rows.dimension)
            if not fits(saved, self._rows):
                raise ListsDamagedError("it belongs to another state of the corpus")
        except ListsDamagedError as error:
            log.warning("dense_lists_rebuilt", folder=str(folder), reason=str(error))
            return
        self._lists = saved.lists
        self._build_at = int(_GROWTH * len(saved.keys))
        self._changed = len(self._rows) - len(saved.keys)
