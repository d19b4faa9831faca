"""The SQLite database of a corpus: the truth that its indexes are derived from.

One writer, guarded by a lock, and a pool of readers that a write never blocks (WAL). A commit is on
the disk when it returns (`synchronous=FULL`). Chunk keys are never used again (AUTOINCREMENT): an
index that lags behind can name a chunk that is gone, but never a wrong one.
"""

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import (
    ChunkRecord,
    Described,
    DocumentSummary,
    Extent,
    KnownDocument,
    NewDocument,
    Scope,
    StoredDocument,
    Vector,
)
from services.retrieve.stores.corpus import CorpusInfo, CorpusSpec, ModelStamp
from services.retrieve.stores.figures import Figures
from services.retrieve.stores.local import acknowledged, documents, facts, matrices, meta, records
from services.retrieve.stores.local.facts import Documents, documents_in
from services.retrieve.stores.local.faults import (
    changes_lost,
    corpus_closed,
    damaged,
    read_failed,
    write_failed,
)
from services.retrieve.stores.local.figures import figures
from services.retrieve.stores.local.layout import DATABASE, corpus_of
from services.retrieve.stores.local.schema import is_outdated, make_tables, upgrade
from services.retrieve.stores.local.sparse_rows import SparseRows
from services.retrieve.stores.local.transaction import Transaction, bodies
from services.retrieve.stores.local.verify import findings
from services.retrieve.stores.state import Finding, Revision
from shared.durable import atomic_file


class Database:
    """An open corpus database. Methods may be called from any thread.

    Reading raises ApiError 500 `corpus_damaged` where the file is, 404 once it is closed.
    """

    def __init__(self, path: Path) -> None:
        """Use `Database.open`."""
        self.path = path
        self._pool: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._closed = False
        self._writer = _connect(path)
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA foreign_keys = ON")
        # The log shrinks again after a large write.
        self._writer.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}")
        self._write_lock = threading.Lock()

    @staticmethod
    def create(
        folder: Path,
        spec: CorpusSpec,
        stamp: ModelStamp,
        chunker: str,
        *,
        sparse: bool = False,
        generation: int = 1,
        created_at: datetime | None = None,
    ) -> None:
        """Make the database of an empty corpus in `folder`, on the disk when this returns.

        sparse: whether its chunks shall have sparse vectors. created_at: when the corpus was, None
        for now. Raises ApiError 507 where the disk refuses.
        """
        now = datetime.now(UTC)
        rows = meta.new_rows(
            spec,
            stamp,
            chunker,
            sparse=sparse,
            generation=generation,
            created_at=created_at or now,
            made_at=now,
        )
        path = folder / DATABASE
        try:
            db = sqlite3.connect(path, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                make_tables(db)
                db.execute("BEGIN")
                meta.write(db, rows)
                db.execute("COMMIT")
            finally:
                db.close()
        except sqlite3.Error as error:
            raise write_failed(error, path) from error

    @classmethod
    def open(cls, folder: Path) -> "Database":
        """Open the database in `folder`; one of an older schema is brought to this one, or left.

        Raises ApiError 500: `corpus_damaged` where it is missing, rubbish, or without changes that
        were acknowledged, `storage_failed` where the disk can't be read, `corpus_newer` where a
        newer version of refdesk wrote it; 507 where the disk has no room for the newer schema.
        """
        path = folder / DATABASE
        noted = acknowledged.noted(folder)  # before the database is read: others may be writing
        try:
            database = cls(path)
        except sqlite3.Error as error:
            raise read_failed(error, path) from error
        try:
            with database._reading() as db:
                outdated = is_outdated(db, path)
            if outdated:
                database._upgrade()
            with database._reading() as db:
                lost = noted - meta.changes_of(meta.read(db))
            if lost > 0:
                # SQLite removes the log when it is closed, with what is behind the damage.
                kept = _kept_log(path)
                raise changes_lost(path, lost, folder / acknowledged.NOTE, kept)
        except BaseException:
            database.close()
            raise
        return database

    def info(self) -> CorpusInfo:
        """Settings, stamp and counts as of the last commit."""
        with self._snapshot() as db:
            return self._info(db)

    def made_at(self) -> datetime:
        """When this generation of the corpus was made."""
        with self._reading() as db:
            return datetime.fromisoformat(meta.read(db)["made_at"])

    def lexical_stamp(self) -> str:
        """The state of the word index that agrees with the last commit; empty for none."""
        with self._reading() as db:
            return meta.read(db)["lexical"]

    def bodies(self) -> Iterator[tuple[int, str]]:
        """What the word index is made of: key, and title and text, of every chunk in key order."""
        with self._reading() as db:
            yield from bodies(db, 0)

    def bodies_after(self, key: int, limit: int) -> list[tuple[int, str]]:
        """The same of at most `limit` chunks, those after a key."""
        with self._reading() as db:
            return list(bodies(db, key + 1, limit))

    def vectors(self) -> tuple[NDArray[np.int64], Vector]:
        """All vectors: keys int64 [n], ascending, and float32 [n, dimension]."""
        with self._snapshot() as db:
            return matrices.vectors(db, self._info(db))

    def sparse_vectors(self) -> SparseRows:
        """All sparse vectors of a corpus that has them."""
        with self._snapshot() as db:
            return matrices.sparse_vectors(db, self._info(db))

    def last_key(self) -> int:
        """The highest key that was ever handed out, to a chunk that may be gone; 0 for none."""
        with self._reading() as db:
            found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
        return int(found[0]) if found else 0

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The keys of all chunks, ascending, and of each the number of its document; int64 [n]."""
        with self._reading() as db:
            rows = db.execute("SELECT key, document FROM chunks").fetchall()
        both = np.array(rows, np.int64).reshape(-1, 2)
        keys, owners = both[np.argsort(both[:, 0])].T.copy()
        return keys, owners

    def documents_in(self, scope: Scope) -> Documents:
        """The documents that a scope sees, by their numbers."""
        with self._snapshot() as db:
            return documents_in(db, scope)

    def keys_of(self, document_id: str) -> list[int]:
        """The keys of a document's chunks, in order."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT c.key FROM documents AS d JOIN chunks AS c ON c.document = d.number"
                " WHERE d.id = ? ORDER BY c.number",
                (document_id,),
            ).fetchall()
        return [key for (key,) in rows]

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """The chunks with these keys, in the order of `keys`; missing ones are absent."""
        with self._snapshot() as db:
            return records.fetch(db, keys)

    def described(self, keys: Sequence[int]) -> dict[int, Described]:
        """Metadata and date of the chunks' documents; missing ones are absent."""
        with self._snapshot() as db:
            return records.described(db, keys)

    def neighbours(
        self, keys: Sequence[int], reach: int | None
    ) -> dict[int, Sequence[ChunkRecord]]:
        """Of each chunk those at most `reach` places away in its document (None: all), in order."""
        with self._snapshot() as db:
            return records.neighbours(db, keys, reach)

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        """From where to where `neighbours` would reach; missing chunks are absent."""
        with self._reading() as db:
            return records.extents(db, keys, reach)

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """Content hash and chunk count of those documents that are stored."""
        with self._reading() as db:
            return documents.known(db, document_ids)

    def documents(
        self, limit: int, after: str | None, scope: Scope, prefix: str = ""
    ) -> list[DocumentSummary]:
        """See `CorpusStore.documents`."""
        with self._snapshot() as db:
            return documents.listed(db, limit, after, scope, prefix)

    def document(self, document_id: str, scope: Scope) -> StoredDocument | None:
        """A document with its parsed text, or None where there is none in the scope."""
        with self._reading() as db:
            return documents.stored(db, document_id, scope)

    def revisions(self) -> Iterator[Revision]:
        """Of every document its state, by ascending id, all of one state of the corpus."""
        with self._snapshot() as db:
            yield from documents.revisions(db)

    def whole(self, document_ids: Sequence[str]) -> dict[str, NewDocument]:
        """See `CorpusStore.whole`."""
        with self._snapshot() as db:
            info = self._info(db)
            return documents.whole(db, document_ids, info.dimension, sparse=info.sparse)

    def figures(self) -> Figures:
        """What the corpus is made of, in numbers."""
        with self._snapshot() as db:
            return figures(db, self.path.parent)

    def findings(self) -> Iterator[Finding]:
        """Whatever is wrong with the file and in it; reads all of it."""
        with self._snapshot() as db:
            yield from findings(db, self.path)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write: committed when the block ends, undone when it raises.

        Raises ApiError 507 where the disk refuses, 500 where the file is damaged; then nothing has
        changed.
        """
        with self._changing() as db:
            change = Transaction(db)
            yield change
        if change.changes:
            acknowledged.note(self.path.parent, change.changes)

    def derive_anew(self) -> None:
        """Make anew what follows from the documents in the database: facts, and SQLite's indexes.

        Raises as `transaction`.
        """
        with self._changing() as db:
            db.execute("REINDEX")
            facts.derive_anew(db)

    def close(self) -> None:
        """Close all connections; those that are reading close when they have done."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            idle, self._pool = self._pool, []
            for connection in [*idle, self._writer]:
                connection.close()

    def _info(self, db: sqlite3.Connection) -> CorpusInfo:
        (count,) = db.execute("SELECT count(*) FROM documents").fetchone()
        (chunks,) = db.execute("SELECT count(*) FROM chunks").fetchone()
        try:
            # A copy of the folder under another name is another corpus, with its own rights.
            return meta.info_of(meta.read(db), corpus_of(self.path.parent), count, chunks)
        except (KeyError, TypeError) as error:
            raise damaged(self.path, error) from error

    def _upgrade(self) -> None:
        self._writer.execute("PRAGMA foreign_keys = OFF")
        try:
            with self._changing() as db:
                upgrade(db, self.path)
        finally:
            self._writer.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._pool_lock:
            if self._closed:
                raise corpus_closed(corpus_of(self.path.parent))
            connection = self._pool.pop() if self._pool else None
        try:
            if connection is None:
                connection = _connect(self.path)
                connection.execute("PRAGMA query_only = ON")
            yield connection
        except sqlite3.Error as error:
            raise read_failed(error, self.path) from error
        except ValueError as error:  # it does not fit its checksum, or can't be what was written
            raise damaged(self.path, error) from error
        finally:
            with self._pool_lock:
                if connection is not None:
                    if self._closed:
                        connection.close()
                    else:
                        self._pool.append(connection)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """For several queries of one state."""
        with self._reading() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            if self._closed:
                raise corpus_closed(corpus_of(self.path.parent))
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise write_failed(error, self.path) from error
            finally:
                # After a failed COMMIT or an exception in the block; a full disk may have undone
                # the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")


def _kept_log(path: Path) -> Path | None:
    """A copy of a database's damaged log; None where there is none."""
    log, kept = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-wal.damaged")
    with suppress(OSError):
        if log.stat().st_size:  # else it was opened before
            with log.open("rb") as source, atomic_file(kept) as copy:
                shutil.copyfileobj(source, copy)
    return kept if kept.exists() else None


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, without transactions of the module's own making."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,  # a connection is used by one thread at a time, see the pool
    )
    db.execute("PRAGMA busy_timeout = 5000")
    return db
