"""A file that is said to be a backup: what must be true of it before anything of it is believed.

Whoever made the file may have meant harm. So it is opened read-only, its tables must be ours to the
letter (no triggers, no views, no expressions of others), nothing that it holds is ever run, and in
the end it is not put anywhere: its documents are read and written anew (restore.py).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np

from services.retrieve.corpus.protocol import FileLabels
from services.retrieve.corpus.settings_protocol import CorpusSettings, RecencyBody
from services.retrieve.corpus.transfer import manifest
from services.retrieve.corpus.transfer.manifest import Manifest, content_sha256
from services.retrieve.stores.base import DocumentFormat, NewDocument
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.fitting import require_fitting
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.schema import SCHEMA, make_tables
from shared.errors import ApiError

_MAGIC = b"SQLite format 3\0"
_MOST_BYTES = 512 * 1024 * 1024  # of one text or vector
_PART = 16  # documents read at a time
_NORM_TOLERANCE = 1e-3
_TABLES = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


def manifest_of(path: Path) -> Manifest:
    """Check a whole file and give its manifest.

    Raises ApiError 422: `not_a_backup`, `backup_newer` where a newer refdesk made it, and
    `broken_backup` where it is not as it was made.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _none("it is no SQLite database")
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with _broken(), closing(sqlite3.connect(address, uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        if schema > SCHEMA:
            raise ApiError(
                422,
                "backup_newer",
                f"this backup has schema {schema}, and this refdesk reads schema {SCHEMA}: "
                "upgrade refdesk",
            )
        if schema < SCHEMA:
            raise _none(f"its schema is {schema}, and backups have schema {SCHEMA}")
        if db.execute(_TABLES).fetchall() != _our_tables():
            raise _none("its tables are not those of a backup")
        (state,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if state != "ok":
            raise bad(state)
        told = manifest.read(db)
        if told is None:
            raise _none("it has no manifest: it is the database of a corpus, as it lies there")
        if content_sha256(db) != told.sha256:
            raise bad("its content does not fit its SHA-256")
        return told


def open_checked(folder: Path) -> Database:
    """The database of a backup that has been checked, in its folder. Raises ApiError 422
    `broken_backup`."""
    with _broken():
        return Database.open(folder)


def info_of(database: Database) -> CorpusInfo:
    """The corpus in a backup, by the name of its folder. Raises ApiError 422 `broken_backup`."""
    with _broken():
        found = database.info()
        CorpusSettings(
            description=found.description,
            language=found.language,
            chunk_tokens=found.chunk_tokens,
            chunk_overlap=found.chunk_overlap,
            recency=None if found.recency is None else RecencyBody(**asdict(found.recency)),
            readers=None if found.readers is None else list(found.readers),
        )
        return found


def documents(database: Database, info: CorpusInfo) -> Iterator[list[NewDocument]]:
    """All documents of a backup, some at a time, each as one that could be written. Raises ApiError
    422 `broken_backup`."""
    with _broken():
        ids = (revision.id for revision in database.revisions())
        while part := list(islice(ids, _PART)):
            found = list(database.whole(part).values())
            for document in found:
                _require_sane(document, info)
            yield found


def _require_sane(document: NewDocument, info: CorpusInfo) -> None:
    """Raise ValueError for what no refdesk would have stored, whatever its checksums say."""
    of = f"document '{str(document.id)[:80]}'"
    if not isinstance(document.id, str) or not 1 <= len(document.id) <= 512:
        raise ValueError(f"{of} has an id that is none")
    if document.format not in get_args(DocumentFormat) or not isinstance(document.metadata, dict):
        raise ValueError(f"{of} has no format or no metadata")
    if not all(isinstance(text, str | None) for text in (document.title, document.url)):
        raise ValueError(f"{of} has a title or an address that is no text")
    # What every request keeps to: numbers of 64 bits, addresses that are no script, and so on.
    FileLabels(
        file=document.id,
        id=document.id,
        url=document.url,
        metadata=dict(document.metadata),
        readers=None if document.readers is None else list(document.readers),
    )
    if not document.chunks:
        raise ValueError(f"{of} has no chunks")
    for chunk in document.chunks:
        if not chunk.text or document.text[chunk.start : chunk.end] != chunk.text:
            raise ValueError(f"{of} has a chunk that is not of its text")
    require_fitting(document, info)
    norms = np.linalg.norm(document.vectors.astype(np.float64), axis=1)
    if np.any(np.abs(norms - 1.0) > _NORM_TOLERANCE):
        raise ValueError(f"{of} has a vector that is not of length 1")


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != 500:
            raise
        raise bad(error.message) from None
    except (
        sqlite3.Error,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise bad(str(error)) from error


def _our_tables() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        make_tables(db)
        return list(db.execute(_TABLES).fetchall())


def _none(why: str) -> ApiError:
    return ApiError(
        422,
        "not_a_backup",
        f"this is no backup of a corpus ({why}); `refdesk backup` makes one",
    )


def bad(why: str) -> ApiError:
    """The error for a backup that is not as it was made: 422 `broken_backup`."""
    return ApiError(
        422, "broken_backup", f"this backup is damaged, and nothing of it was restored: {why}"
    )
