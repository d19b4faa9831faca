"""Whatever is wrong in a corpus's database: every page, every row and every checksum is looked at.

A corpus of any size is walked row by row; where a table can't be read on, the next one is.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from services.retrieve.stores.local import meta, records
from services.retrieve.stores.local.facts import facts_of
from services.retrieve.stores.local.sums import row_sum, vector_sum
from services.retrieve.stores.state import Finding

_SHOWN = 100  # faults of the file itself that are told

Walk = Callable[[sqlite3.Connection], Iterator[Finding]]


def findings(db: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    """What disagrees in the database of a file, of the state that `db` reads."""
    walks: tuple[Walk, ...] = (_pages, _settings, _documents, _facts, _chunks, _counts, _vectors)
    for walk in walks:
        try:
            for finding in walk(db):
                where = str(path) if finding.where == "" else f"{path}: {finding.where}"
                yield replace(finding, where=where)
        except sqlite3.Error as error:
            yield Finding(str(path), f"it can't be read on ({error})")


def _pages(db: sqlite3.Connection) -> Iterator[Finding]:
    for (told,) in db.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if told != "ok":
            # Of SQLite's own indexes, which REINDEX makes anew.
            derived = "index" in told and told.startswith(("row", "wrong", "non-unique"))
            yield Finding("", told, derived)
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN):
        yield Finding(f"row {row} of {table}", f"belongs to nothing in {parent}")


def _settings(db: sqlite3.Connection) -> Iterator[Finding]:
    try:
        meta.info_of(meta.read(db), "", 0, 0)
    except (ValueError, KeyError, TypeError) as error:
        yield Finding("", f"its settings can't be read ({error})")


def _documents(db: sqlite3.Connection) -> Iterator[Finding]:
    rows = db.execute(
        f"SELECT {records.DOCUMENT}, d.text_sum, d.outline, d.text"  # noqa: S608 - constants
        " FROM documents AS d LEFT JOIN restricted AS r ON r.document = d.number"
    )
    for row in rows:
        *described, text_sum, outline, text = row
        if row_sum(*described[1:11]) != described[11]:
            yield Finding(f"document '{row[1]}'", "what describes it does not fit its checksum")
        if row_sum(outline, text) != text_sum:
            yield Finding(f"document '{row[1]}'", "its text does not fit its checksum")


def _facts(db: sqlite3.Connection) -> Iterator[Finding]:
    """What filters and permissions go by, which must follow from each document's metadata."""
    rows = db.execute(
        "SELECT number, id, metadata, readers FROM documents LEFT JOIN restricted"
        " ON document = number"
    )
    for number, id_, metadata, readers in rows:
        found = set(db.execute("SELECT name, kind, value FROM facts WHERE document = ?", (number,)))
        try:
            wanted = {
                (name, kind, int(value) if kind == "bool" else value)
                for name, kind, value in facts_of(json.loads(metadata), records.readers(readers))
            }
        except ValueError as error:
            yield Finding(f"document '{id_}'", f"its metadata can't be read ({error})")
            continue
        if found != wanted:
            what = "filters see other metadata than it has"
            yield Finding(f"document '{id_}'", what, derived=True)


def _chunks(db: sqlite3.Connection) -> Iterator[Finding]:
    rows = db.execute(
        "SELECT d.id, c.checksum, c.document, c.number, c.start_at, c.end_at, c.tokens, c.place,"
        " c.text FROM chunks AS c JOIN documents AS d ON d.number = c.document"
    )
    for id_, checksum, *fields in rows:
        if row_sum(*fields) != checksum:
            yield Finding(f"chunk {fields[1]} of document '{id_}'", "it does not fit its checksum")


def _counts(db: sqlite3.Connection) -> Iterator[Finding]:
    rows = db.execute(
        "SELECT d.id, d.chunks, count(c.key) AS there, coalesce(max(c.number) + 1, 0) AS highest"
        " FROM documents AS d LEFT JOIN chunks AS c ON c.document = d.number GROUP BY d.number"
        " HAVING there != d.chunks OR highest != d.chunks"
    )
    for id_, chunks, there, _ in rows:
        yield Finding(f"document '{id_}'", f"it has {there} of {chunks} chunks")


def _vectors(db: sqlite3.Connection) -> Iterator[Finding]:
    rows = dict(db.execute("SELECT name, value FROM meta"))
    size = 4 * int(rows.get("dimension", 0))
    tables = {"vectors": "vector"}
    if rows.get("sparse") == str(True):
        tables["sparse_vectors"] = "weights"
    for table, column in tables.items():
        found = db.execute(
            f"SELECT c.key, v.{column}, v.checksum FROM chunks AS c"  # noqa: S608 - our own names
            f" LEFT JOIN {table} AS v ON v.key = c.key"
        )
        for key, data, checksum in found:
            where = f"{table} of chunk {key}"
            if data is None:
                yield Finding(where, "there is none")
            elif not isinstance(data, bytes) or vector_sum(key, data) != checksum:
                yield Finding(where, "it does not fit its checksum")
            elif table == "vectors" and len(data) != size:
                yield Finding(where, f"it has {len(data)} bytes, not {size}")
