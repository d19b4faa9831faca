"""The word index of a large corpus, built anew in the background while the corpus is in use.

The chunks are read in parts, each of its own state of the database: no long transaction keeps
SQLite's log from being shortened. What was written meanwhile is found at the end, by comparing the
keys: a chunk never changes and its key is never used again. The last comparison is made while
writes wait, so that the index that is handed over agrees with the database.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.lexical import LexicalIndex
from services.retrieve.stores.state import INDEX_REBUILDING
from shared.errors import ApiError
from shared.telemetry import get_logger

AT_ONCE = 2_000  # chunks that are indexed before anyone would notice: about 0.2 s
_PART = 1_000  # chunks read at a time
_FEW = 500  # chunks that writes wait for at the end
_TOLD_EVERY_S = 3.0
_REST_S = 1.0  # after a failure; after each further one twice as long,
_LONGEST_REST_S = 3600.0  # up to this
_LOOK_S = 0.1  # while waiting for writes, whether to go on at all

log = get_logger(__name__)


class _StoppedError(Exception):
    """Nobody wants the index any more."""


class Rebuild:
    """A word index on its way. It is built by a thread of its own, until it is there or stopped."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        writing: threading.Lock,
        hand_over: Callable[[LexicalIndex], None],
    ) -> None:
        """Begin. folder: of the index. writing: held by each write, and while `hand_over` takes the
        index, which is of the database's last commit then."""
        info = database.info()
        self._folder = folder
        self._database = database
        self._writing = writing
        self._hand_over = hand_over
        self._language, self._corpus, self._total = info.language, info.name, info.chunks
        self._done = 0
        self._stopped = threading.Event()
        # Not waited for when the process just ends: the next one begins again.
        self._thread = threading.Thread(target=self._run, name="word-index", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> float:
        """How much of it is there, 0.0 to 1.0."""
        return min(1.0, self._done / self._total)

    def stop(self) -> None:
        """Give up, if it is not done; the folder is left alone afterwards."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        rest = _REST_S
        while not self._stopped.is_set():
            try:
                self._build()
            except _StoppedError:
                return
            except Exception as error:  # whatever it was, the other arms go on
                log.exception(
                    "word_index_failed", corpus=self._corpus, reason=str(error), rest_s=rest
                )
                self._stopped.wait(rest)
                rest = min(2 * rest, _LONGEST_REST_S)
            else:
                return

    def _build(self) -> None:
        started = time.monotonic()
        index = build(self._folder, self._database, self._bodies)
        while self._catch_up(index) > _FEW:
            pass
        while not self._writing.acquire(timeout=_LOOK_S):
            self._go_on()
        try:
            self._go_on()
            self._catch_up(index)
            note(self._database, index)
            self._hand_over(index)
        finally:
            self._writing.release()
        log.info(
            "word_index_back",
            corpus=self._corpus,
            chunks=len(index),
            seconds=round(time.monotonic() - started, 1),
        )

    def _bodies(self) -> Iterator[tuple[int, str]]:
        self._done, after, told = 0, 0, time.monotonic()
        while part := self._database.bodies_after(after, _PART):
            self._go_on()
            yield from part
            self._done, after = self._done + len(part), part[-1][0]
            if time.monotonic() - told > _TOLD_EVERY_S:
                told = time.monotonic()
                log.info(
                    "word_index_rebuilding",
                    corpus=self._corpus,
                    done=self._done,
                    total=self._total,
                )

    def _catch_up(self, index: LexicalIndex) -> int:
        """Bring the index after the database; how many chunks it took."""
        wanted, _ = self._database.keys()
        have = index.keys()
        gone = np.setdiff1d(have, wanted, assume_unique=True)
        new = set(np.setdiff1d(wanted, have, assume_unique=True).tolist())
        if len(gone) or new:
            index.write(gone.tolist(), self._of(new))
            index.reload()
        return len(gone) + len(new)

    def _of(self, keys: set[int]) -> Iterator[tuple[int, str]]:
        after = min(keys, default=1) - 1
        while keys and (part := self._database.bodies_after(after, _PART)):
            self._go_on()
            yield from (one for one in part if one[0] in keys)
            after = part[-1][0]
            if after >= max(keys):
                return

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError


def build(
    folder: Path, database: Database, bodies: Callable[[], Iterator[tuple[int, str]]]
) -> LexicalIndex:
    """A word index in the place of what is in the folder; in memory where the disk takes none."""
    info = database.info()
    try:
        return LexicalIndex.build(folder, info.language, bodies())
    except (OSError, ValueError) as error:
        # A full disk. Searching goes on from memory; a later open tries the disk again. The
        # reason says it all: a traceback would add nothing.
        log.error("word_index_in_memory", corpus=info.name, reason=str(error))  # noqa: TRY400
        return LexicalIndex.build(None, info.language, bodies())


def note(database: Database, index: LexicalIndex) -> None:
    """Tell the database which word index is its own. No write may come between."""
    try:
        with database.transaction() as change:
            change.note({"lexical": index.stamp})
    except ApiError as error:
        # Without the note it is built once more on the next open.
        log.warning("word_index_not_noted", reason=error.message)


def being_rebuilt(corpus: str, progress: float) -> ApiError:
    """The error for a search by words that no index is there for: 503 `index_rebuilding`."""
    return ApiError(
        503,
        INDEX_REBUILDING,
        f"the word index of corpus '{corpus}' is being built anew, {progress:.0%} of it is there: "
        'search with the arm "dense" meanwhile, or try again soon',
        headers={"Retry-After": "5"},
    )
