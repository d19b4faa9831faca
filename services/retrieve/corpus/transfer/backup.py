"""A corpus as one file: a database of the local store's own tables, whatever the engine.

The file is made beside the corpora, in a folder that goes when it is done, and what a process left
there that died goes when the next one starts. Of a local corpus it is made by SQLite itself, from
one moment of the corpus while writes go on; of another one document by document, as an export.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from services.retrieve.corpus.transfer import manifest
from services.retrieve.corpus.transfer.export import documents
from services.retrieve.corpus.transfer.manifest import Manifest, content_sha256
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.layout import DATABASE
from services.retrieve.stores.local.schema import make_tables
from services.retrieve.stores.local.store import LocalStore
from shared import __version__

_PART = 1024 * 1024  # bytes read or sent at a time
_TABLES = ("meta", "documents", "restricted", "chunks", "vectors", "sparse_vectors", "facts")


@dataclass(frozen=True, eq=False)
class Backup:
    """A backup that is made. file: open for reading at its start, and gone once it is closed.
    size: bytes. sha256: of the file, in hex."""

    file: BinaryIO
    size: int
    sha256: str
    manifest: Manifest

    def parts(self) -> Iterator[bytes]:
        """The file, part by part; it is closed at the end."""
        with self.file as file:
            while part := file.read(_PART):
                yield part


def make(store: CorpusStore, folder: Path) -> Backup:
    """Make a backup of a corpus. folder: where there is room for it. Raises ApiError 507 where
    there is not, and what the store does."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="backup-") as made:
        path = Path(made) / DATABASE
        if isinstance(store, LocalStore):
            _copy_tables(store.folder / DATABASE, path)
        else:
            _copy_documents(store, path, folder)
        told = _sign(path, store.info.name)
        file = path.open("rb")
        size, sha256 = path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return Backup(file, size, sha256, told)


def _copy_tables(source: Path, path: Path) -> None:
    """Copy the rows into tables that are made anew: nothing of what was deleted comes along, and
    the tables are the same whatever version of refdesk made the corpus."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            make_tables(db)
        address = f"{source.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as db:
            db.execute("ATTACH ? AS copy", (f"{path.absolute().as_uri()}?mode=rw",))
            # It is not there before it is whole, and lost with the process in any case.
            db.execute("PRAGMA copy.journal_mode = OFF")
            db.execute("PRAGMA copy.synchronous = OFF")
            db.execute("BEGIN")  # one moment of the source
            for table in _TABLES:
                names = [row[1] for row in db.execute(f"PRAGMA copy.table_info({table})")]
                columns = ", ".join(names)
                db.execute(
                    f"INSERT INTO copy.{table} ({columns}) SELECT {columns} FROM main.{table}"  # noqa: S608 - our own names
                )
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise write_failed(error, path) from error


def _copy_documents(store: CorpusStore, path: Path, folder: Path) -> None:
    info = store.info
    Database.create(
        path.parent,
        Cut.of(info).spec,
        info.stamp,
        info.chunker,
        sparse=info.sparse,
        created_at=info.created_at,
    )
    database = Database.open(path.parent)
    try:
        for document in documents(store, folder):
            with database.transaction() as change:
                change.replace(document)
    finally:
        database.close()


def _sign(path: Path, name: str) -> Manifest:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            (count,) = db.execute("SELECT count(*) FROM documents").fetchone()
            (chunks,) = db.execute("SELECT count(*) FROM chunks").fetchone()
            now = datetime.now(UTC).replace(microsecond=0)
            told = Manifest(name, now, __version__, count, chunks, content_sha256(db))
            db.execute("BEGIN")
            manifest.put(db, told)
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise write_failed(error, path) from error
    return told
