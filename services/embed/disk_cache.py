"""Vectors on disk, so that a restart finds them: one SQLite file, up to a number of bytes.

Rows are numbered by age: a new one is put at the end, one that is found again late is moved there,
and the first ones go when there is no room. So the oldest lie together, and what they leave is
whole pages. A row that is damaged is no row, and a disk that fails is told of, never an error.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from prometheus_client import Counter

from services.embed.memory_cache import Known
from shared.telemetry import get_logger

log = get_logger(__name__)

FAILURES = Counter(
    "refdesk_embed_cache_disk_failures",
    "Times that the disk cache could not do its work",
    ["operation"],
)

FILE = "embed-vectors-1.sqlite"  # another number where the table is another
_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    age INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, tokens INTEGER NOT NULL,
    cut INTEGER NOT NULL, vector BLOB NOT NULL, checksum BLOB NOT NULL)
"""
# One aggregate to a query is read off the end of the table, two read all of it.
_MIDDLE = "SELECT coalesce((SELECT min(age) FROM vectors) + (SELECT max(age) FROM vectors), 0) / 2"
_PAGE = 8192
_ROWS = 64  # written in one transaction
_ROW_BYTES = 200  # of a row beside its vector, in the table and its index
# The write-ahead log is folded into the file at this size; it may pass it by a transaction.
_LOG_PAGES = 128
_LOG_BYTES = 4 * 1024 * 1024  # of the limit, set aside for it
_WAIT_S = 1  # for another process that writes
# The second: SQLite's words quote the file, and Python can't read those of a damaged one.
_FAULTS = (sqlite3.Error, UnicodeDecodeError)


class DiskCache:
    """The vectors in `folder`, at most `max_bytes` (16 MiB or more) of files.

    Used from one thread at a time, by several processes where they share the folder. Nothing here
    raises: what fails is logged, once for each operation, and counted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE
        self._max_pages = (max_bytes - _LOG_BYTES) // _PAGE
        self._told_of: set[str] = set()
        self._db: sqlite3.Connection | None = None
        try:
            self._db = self._open()
        except (*_FAULTS, OSError) as error:
            self._failed("open", str(error))

    @property
    def nbytes(self) -> int:
        """The bytes of the file that hold something; 0 where it can't be read."""
        if self._db is not None:
            with suppress(*_FAULTS):
                return _used_pages(self._db) * _PAGE
        return 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is kept under the keys."""
        found: dict[bytes, Known] = {}
        late: list[bytes] = []
        if self._db is None:
            return found
        with self._told("read"), _transaction(self._db, "BEGIN") as db:
            [middle] = db.execute(_MIDDLE).fetchone()
            for key in keys:
                row = db.execute(
                    "SELECT tokens, cut, vector, checksum, age FROM vectors WHERE key = ?", (key,)
                ).fetchone()
                if row is None:
                    continue
                tokens, cut, vector, checksum, age = row
                if not _intact(key, tokens, cut, vector, checksum):
                    self._failed("read", "a row is damaged")
                    continue
                found[key] = Known(np.frombuffer(vector, "<f4"), tokens, cut)
                if age < middle:  # the younger half is far from going
                    late.append(key)
        self._write(
            "UPDATE vectors SET age = (SELECT max(age) + 1 FROM vectors) WHERE key = ?",
            [(key,) for key in late],
            max((found[key].vector.nbytes for key in late), default=0),
        )
        return found

    def put(self, known: Mapping[bytes, Known]) -> None:
        """Keep them; the oldest go where there is no room."""
        self._write(
            "INSERT OR REPLACE INTO vectors (key, tokens, cut, vector, checksum)"
            " VALUES (?, ?, ?, ?, ?)",
            [_row(key, one) for key, one in known.items()],
            max((one.vector.nbytes for one in known.values()), default=0),
        )

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        if self._db is not None:
            with suppress(*_FAULTS):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)  # vectors tell about the texts; the log takes the same rights
        db = sqlite3.connect(
            self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute(f"PRAGMA page_size = {_PAGE}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            # A power cut may take the last rows with it, and never leaves a file in disorder.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            db.execute(_TABLE)
            # The limit may be lower than it was.
            self._make_room(db, _ROWS, 0)
            db.executescript("PRAGMA incremental_vacuum")  # execute would free a single page
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _write(self, statement: str, rows: Sequence[tuple[bytes | int, ...]], longest: int) -> None:
        """Run the statement for each row, as far as the disk takes it.

        longest: bytes of the longest vector among the rows.
        """
        if self._db is None:
            return
        with self._told("write"):
            for first in range(0, len(rows), _ROWS):
                some = rows[first : first + _ROWS]
                with _transaction(self._db, "BEGIN IMMEDIATE") as db:
                    self._make_room(db, len(some), longest)
                    db.executemany(statement, some)

    def _make_room(self, db: sqlite3.Connection, rows: int, vector_bytes: int) -> None:
        """Let go of the oldest rows, so that `rows` more fit whatever pages they need."""
        each = (vector_bytes + _ROW_BYTES) // _PAGE + 2
        while _used_pages(db) + rows * each > self._max_pages:
            gone = db.execute(
                "DELETE FROM vectors WHERE age IN (SELECT age FROM vectors ORDER BY age LIMIT ?)",
                (_ROWS,),
            )
            if not gone.rowcount:
                return

    @contextmanager
    def _told(self, operation: str) -> Iterator[None]:
        """A fault of the disk ends what is done here, and goes no further."""
        try:
            yield
        except _FAULTS as error:
            self._failed(operation, str(error))

    def _failed(self, operation: str, reason: str) -> None:
        FAILURES.labels(operation).inc()
        if operation not in self._told_of:
            self._told_of.add(operation)
            log.warning(
                "disk_cache_failed", operation=operation, file=str(self._path), reason=reason
            )


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[sqlite3.Connection]:
    """All of it or nothing. Raises one of `_FAULTS`."""
    db.execute(begin)
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(*_FAULTS):
                db.execute("ROLLBACK")
        raise


def _row(key: bytes, known: Known) -> tuple[bytes, int, int, bytes, bytes]:
    vector = known.vector.astype("<f4").tobytes()
    checksum = _checksum(key, known.tokens, known.cut, vector)
    return key, known.tokens, known.cut, vector, checksum


def _intact(key: bytes, tokens: object, cut: object, vector: object, checksum: object) -> bool:
    return (
        isinstance(vector, bytes)
        and len(vector) % 4 == 0
        and checksum == _checksum(key, tokens, cut, vector)
    )


def _checksum(key: bytes, tokens: object, cut: object, vector: bytes) -> bytes:
    """Of all that is told about a text, and of which text it is."""
    told = key + f" {tokens} {cut} ".encode() + vector
    return hashlib.blake2b(told, digest_size=8).digest()


def _used_pages(db: sqlite3.Connection) -> int:
    [pages] = db.execute("PRAGMA page_count").fetchone()
    [free] = db.execute("PRAGMA freelist_count").fetchone()
    return int(pages) - int(free)
