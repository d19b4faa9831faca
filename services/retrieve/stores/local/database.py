"""The SQLite database of a corpus: the truth that its indexes are derived from.

One writer, guarded by a lock, and a pool of readers that a write never blocks (WAL). A commit is on
the disk when it returns (`synchronous=FULL`). Chunk keys are never used again (AUTOINCREMENT): an
index that lags behind can name a chunk that is gone, but never a wrong one.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import (
    ChunkRecord,
    CorpusInfo,
    CorpusSpec,
    Described,
    DocumentSummary,
    Extent,
    KnownDocument,
    ModelStamp,
    Scope,
    StoredDocument,
    Vector,
)
from services.retrieve.stores.local import records
from services.retrieve.stores.local.facts import Documents, documents_in, page_in
from services.retrieve.stores.local.faults import (
    corpus_closed,
    damaged,
    read_failed,
    write_failed,
)
from services.retrieve.stores.local.schema import is_outdated, make_tables, upgrade
from services.retrieve.stores.local.sparse_rows import SparseRows
from services.retrieve.stores.local.transaction import Transaction, bodies

FILE = "corpus.db"
_PART = 4096  # rows read at a time where all are wanted


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
        folder: Path, spec: CorpusSpec, stamp: ModelStamp, chunker: str, *, sparse: bool = False
    ) -> None:
        """Make the database of an empty corpus in `folder`, on the disk when this returns.

        sparse: whether its chunks shall have sparse vectors. Raises ApiError 507 where the disk
        refuses.
        """
        meta = {
            **asdict(spec),
            **asdict(stamp),
            "chunker": chunker,
            "sparse": sparse,
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "generation": 0,
            "lexical": "",
        }
        path = folder / FILE
        try:
            db = sqlite3.connect(path, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                make_tables(db, sparse=sparse)
                rows = [(name, str(value)) for name, value in meta.items()]
                db.execute("BEGIN")
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
                db.execute("COMMIT")
            finally:
                db.close()
        except sqlite3.Error as error:
            raise write_failed(error, path) from error

    @classmethod
    def open(cls, folder: Path) -> "Database":
        """Open the database in `folder`; one of an older schema is brought to this one, or left.

        Raises ApiError 500: `corpus_damaged` where it is missing or rubbish, `storage_failed` where
        the disk can't be read, `corpus_newer` where a newer version of refdesk wrote it; 507 where
        the disk has no room for the newer schema.
        """
        path = folder / FILE
        try:
            database = cls(path)
        except sqlite3.Error as error:
            raise read_failed(error, path) from error
        try:
            with database._reading() as db:
                outdated = is_outdated(db, path)
            if outdated:
                with database._changing() as db:
                    upgrade(db, path)
        except BaseException:
            database.close()
            raise
        return database

    def info(self) -> CorpusInfo:
        """Settings, stamp and counts as of the last commit."""
        with self._reading() as db:
            meta = _meta(db)
            (documents,) = db.execute("SELECT count(*) FROM documents").fetchone()
            (chunks,) = db.execute("SELECT count(*) FROM chunks").fetchone()
        try:
            return CorpusInfo(
                # A copy of the folder under another name is another corpus, with its own rights.
                name=self.path.parent.name,
                description=meta["description"],
                language=meta["language"],
                model=meta["model"],
                revision=meta["revision"],
                dimension=int(meta["dimension"]),
                chunk_tokens=int(meta["chunk_tokens"]),
                chunk_overlap=int(meta["chunk_overlap"]),
                curate=meta.get("curate") != str(False),
                sparse=meta.get("sparse") == str(True),  # older corpora do not say
                chunker=meta["chunker"],
                documents=documents,
                chunks=chunks,
                writes=int(meta["generation"]),
                created_at=datetime.fromisoformat(meta["created_at"]),
            )
        except (KeyError, ValueError) as error:
            raise damaged(self.path, error) from error

    def lexical_stamp(self) -> str:
        """The state of the word index that agrees with the last commit; empty for none."""
        with self._reading() as db:
            return _meta(db).get("lexical", "")

    def bodies(self) -> Iterator[tuple[int, str]]:
        """What the word index is made of: key, and title and text, of every chunk in key order."""
        with self._reading() as db:
            yield from bodies(db, 0)

    def vectors(self, info: CorpusInfo) -> tuple[NDArray[np.int64], Vector]:
        """All vectors: keys int64 [n], ascending, and float32 [n, dimension].

        `info` is that of the last commit. Raises ApiError 500 `corpus_damaged` unless there is a
        vector of the corpus's dimension for each chunk.
        """
        keys = np.empty(info.chunks, np.int64)
        matrix = np.empty((info.chunks, info.dimension), np.float32)
        at = 0
        with self._reading() as db:
            rows = db.execute("SELECT key, vector FROM vectors ORDER BY key")
            while part := rows.fetchmany(_PART):
                try:
                    keys[at : at + len(part)] = [key for key, _ in part]
                    data = np.frombuffer(b"".join(vector for _, vector in part), "<f4")
                    matrix[at : at + len(part)] = data.reshape(len(part), info.dimension)
                except (TypeError, ValueError) as error:  # a text, or bytes that do not fit
                    raise damaged(self.path, "its vectors do not fit its chunks") from error
                at += len(part)
        if at != info.chunks:
            raise damaged(self.path, "a chunk has no vector")
        return keys, matrix

    def sparse_vectors(self, info: CorpusInfo) -> SparseRows:
        """All sparse vectors of a corpus that has them. `info` and errors as for `vectors`."""
        parts = []
        with self._reading() as db:
            rows = db.execute("SELECT key, weights FROM sparse_vectors ORDER BY key")
            while part := rows.fetchmany(_PART):
                try:
                    parts.append(SparseRows.unpacked(part))
                except (TypeError, ValueError) as error:  # a text, or bytes that do not fit
                    raise damaged(self.path, error) from error
        found = SparseRows.joined(parts)
        if len(found.keys) != info.chunks:
            raise damaged(self.path, "a chunk has no sparse vector")
        return found

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
            rows = db.execute(
                "SELECT id, content_hash, chunks FROM documents"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(document_ids)),),
            ).fetchall()
        return {row[0]: KnownDocument(row[1], row[2]) for row in rows}

    def documents(self, limit: int, after: str | None, scope: Scope) -> list[DocumentSummary]:
        """At most `limit` documents of the scope in the order of their ids, those after `after`."""
        with self._snapshot() as db:
            rows = db.execute(
                "SELECT id, title, url, chunks, updated_at FROM documents"
                " WHERE number IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(page_in(db, limit, after or "", scope)),),
            ).fetchall()
        return [
            DocumentSummary(id_, title, url, chunks, datetime.fromisoformat(updated_at))
            for id_, title, url, chunks, updated_at in rows
        ]

    def document(self, document_id: str, scope: Scope) -> StoredDocument | None:
        """A document with its parsed text, or None where there is none in the scope."""
        with self._reading() as db:
            row = db.execute(
                "SELECT id, title, url, format, metadata, text, chunks, version, updated_at,"
                " readers FROM documents LEFT JOIN restricted ON document = number WHERE id = ?",
                (document_id,),
            ).fetchone()
        if row is None:
            return None
        metadata, readers = json.loads(row[4]), records.readers(row[9])
        if not scope.sees(metadata, readers):
            return None
        return StoredDocument(
            id=row[0],
            title=row[1],
            url=row[2],
            format=row[3],
            metadata=metadata,
            text=row[5],
            chunks=row[6],
            version=row[7],
            updated_at=datetime.fromisoformat(row[8]),
            readers=readers,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write: committed when the block ends, undone when it raises.

        Raises ApiError 507 where the disk refuses, 500 where the file is damaged; then nothing has
        changed.
        """
        with self._changing() as db:
            yield Transaction(db)

    def close(self) -> None:
        """Close all connections; those that are reading close when they have done."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            idle, self._pool = self._pool, []
            for connection in [*idle, self._writer]:
                connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._pool_lock:
            if self._closed:
                raise corpus_closed(self.path)
            connection = self._pool.pop() if self._pool else None
        try:
            if connection is None:
                connection = _connect(self.path)
                connection.execute("PRAGMA query_only = ON")
            yield connection
        except sqlite3.Error as error:
            raise read_failed(error, self.path) from error
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
                raise corpus_closed(self.path)
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


def _meta(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT name, value FROM meta").fetchall())
