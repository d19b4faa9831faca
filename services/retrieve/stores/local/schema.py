"""The tables of a corpus's database, and how those of older schemas become today's."""

import sqlite3
from pathlib import Path

from services.retrieve.stores.local import facts, meta
from services.retrieve.stores.local.faults import damaged, newer
from services.retrieve.stores.local.sums import row_sum, vector_sum

# 1 had no facts; 2 and, with sparse vectors, 3 had no outlines, places or checksums.
SCHEMA = 4

# A document's text comes last in its row: reading the columns before it leaves its pages alone.
_DOCUMENTS = """
CREATE TABLE {name} (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, content_hash TEXT NOT NULL,
    title TEXT, url TEXT, format TEXT NOT NULL, chunks INTEGER NOT NULL, version INTEGER NOT NULL,
    updated_at TEXT NOT NULL, metadata TEXT NOT NULL,
    described_sum INTEGER NOT NULL, text_sum INTEGER NOT NULL,
    outline TEXT NOT NULL, text TEXT NOT NULL)"""
_SPARSE = """
CREATE TABLE IF NOT EXISTS sparse_vectors (
    key INTEGER PRIMARY KEY REFERENCES chunks(key) ON DELETE CASCADE, weights BLOB NOT NULL{sum})"""
_SUM = "checksum INTEGER NOT NULL"
_TABLES = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{_DOCUMENTS.format(name="documents")};
CREATE TABLE chunks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents(number) ON DELETE CASCADE,
    number INTEGER NOT NULL, start_at INTEGER NOT NULL, end_at INTEGER NOT NULL,
    tokens INTEGER NOT NULL, text TEXT NOT NULL, place TEXT NOT NULL, {_SUM});
CREATE UNIQUE INDEX chunks_of_document ON chunks (document, number);
CREATE TABLE vectors (
    key INTEGER PRIMARY KEY REFERENCES chunks(key) ON DELETE CASCADE, vector BLOB NOT NULL, {_SUM});
{_SPARSE.format(sum=f", {_SUM}")};
{facts.TABLES}"""

# SQLite itself walks the rows: of a large corpus no more than a row is in our memory. The table of
# documents is made anew, as a number of theirs must not come twice (AUTOINCREMENT).
_FROM_3 = f"""
{_DOCUMENTS.format(name="documents_4")};
INSERT INTO documents_4
    SELECT number, id, content_hash, title, url, format, chunks, version, updated_at, metadata,
        row_sum(id, content_hash, title, url, format, chunks, version, updated_at, metadata,
        (SELECT readers FROM restricted WHERE document = number)), row_sum('', text), '', text
    FROM documents;
DROP TABLE documents;
ALTER TABLE documents_4 RENAME TO documents;
ALTER TABLE chunks ADD COLUMN place TEXT NOT NULL DEFAULT '';
ALTER TABLE chunks ADD COLUMN {_SUM} DEFAULT 0;
UPDATE chunks SET checksum = row_sum(document, number, start_at, end_at, tokens, place, text);
ALTER TABLE vectors ADD COLUMN {_SUM} DEFAULT 0;
UPDATE vectors SET checksum = vector_sum(key, vector);
{_SPARSE.format(sum="")};
ALTER TABLE sparse_vectors ADD COLUMN {_SUM} DEFAULT 0;
UPDATE sparse_vectors SET checksum = vector_sum(key, weights);
UPDATE meta SET name = 'writes' WHERE name = 'generation'
"""  # noqa: S608 - our own names


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables of an empty corpus, in a transaction of their own."""
    db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT")


def is_outdated(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the database in a file has to be upgraded.

    Raises ApiError 500 `corpus_newer` where a newer version of refdesk made its tables, and
    `corpus_damaged` where it has none.
    """
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA:
        raise newer(path, schema, SCHEMA)
    if schema < 1:
        raise damaged(path, "it holds no corpus")
    return int(schema) < SCHEMA


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to today's schema, within a transaction: all of it or nothing, the number
    among it, so that a process that dies leaves the old schema. Foreign keys must not be watched
    over meanwhile. Raises ApiError 500 `corpus_damaged` where what is in them can't be read."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    db.create_function("vector_sum", 2, vector_sum, deterministic=True)
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    try:
        if schema == 1:
            facts.derive_facts(db)
        # One by one: executescript would commit the transaction that this is part of.
        for statement in _FROM_3.split(";"):
            db.execute(statement)
        rows = dict(db.execute("SELECT name, value FROM meta"))
        meta.write(
            db,
            {
                "sparse": rows.get("sparse", str(False)),
                "curate": rows.get("curate", str(True)),
                "recency": "null",
                "readers": "null",
                "generation": "1",
                "made_at": rows["created_at"],
            },
        )
    except (ValueError, KeyError) as error:
        raise damaged(path, error) from error
    db.execute(f"PRAGMA user_version = {SCHEMA}")
