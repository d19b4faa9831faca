"""The tables of a corpus's database, and how those of older schemas become today's."""

import sqlite3
from pathlib import Path

from services.retrieve.stores.local import facts
from services.retrieve.stores.local.faults import damaged, newer

SCHEMA = 2  # 1 had no facts
# Of a corpus with sparse vectors alone: a refdesk that does not know them must not write to it.
SPARSE_SCHEMA = 3

# A document's text comes last in its row: reading the columns before it leaves its pages alone.
_TABLES = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content_hash TEXT NOT NULL, title TEXT,
    url TEXT, format TEXT NOT NULL, chunks INTEGER NOT NULL, version INTEGER NOT NULL,
    updated_at TEXT NOT NULL, metadata TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE chunks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents(number) ON DELETE CASCADE,
    number INTEGER NOT NULL, start_at INTEGER NOT NULL, end_at INTEGER NOT NULL,
    tokens INTEGER NOT NULL, text TEXT NOT NULL);
CREATE UNIQUE INDEX chunks_of_document ON chunks (document, number);
CREATE TABLE vectors (
    key INTEGER PRIMARY KEY REFERENCES chunks(key) ON DELETE CASCADE, vector BLOB NOT NULL);
{facts.TABLES}"""
_SPARSE_TABLE = """
CREATE TABLE sparse_vectors (
    key INTEGER PRIMARY KEY REFERENCES chunks(key) ON DELETE CASCADE, weights BLOB NOT NULL);
"""


def make_tables(db: sqlite3.Connection, *, sparse: bool) -> None:
    """Make the tables of an empty corpus, in a transaction of their own."""
    schema, tables = (SPARSE_SCHEMA, _TABLES + _SPARSE_TABLE) if sparse else (SCHEMA, _TABLES)
    db.executescript(f"BEGIN; {tables} PRAGMA user_version = {schema}; COMMIT")


def is_outdated(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the database in a file has to be upgraded.

    Raises ApiError 500 `corpus_newer` where a newer version of refdesk made its tables, and
    `corpus_damaged` where it has none.
    """
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if schema > SPARSE_SCHEMA:
        raise newer(path, schema, SPARSE_SCHEMA)
    if schema < 1:
        raise damaged(path, "it holds no corpus")
    return int(schema) < SCHEMA


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to today's schema, within a transaction: all of it or nothing, the number
    among it, so that a process that dies leaves the old schema. Raises ApiError 500
    `corpus_damaged` where what is in them can't be read."""
    try:
        facts.derive_facts(db)
    except ValueError as error:
        raise damaged(path, error) from error
    db.execute(f"PRAGMA user_version = {SCHEMA}")
