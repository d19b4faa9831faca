"""A corpus of an older schema is brought to today's when it is opened."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.local.schema import SCHEMA
from services.retrieve.stores.outline import NOWHERE
from tests.corpora import STAMP, document, vector_of, weighed
from tests.fulldisk import files_no_longer_than

RED = Scope(parse_filter({"type": "eq", "key": "team", "value": "red"}))
RECENT = Scope(parse_filter({"type": "gte", "key": "day", "value": "2026-01-01"}))


@pytest.fixture(autouse=True)
def _log_in_memory() -> Iterator[None]:
    """A limit on the size of files holds for the one that pytest keeps the output in, too."""
    with structlog.testing.capture_logs():
        yield


# From today's schema to 2 and, with sparse vectors, 3; from there to 1, which had no facts.
TO_3 = """
CREATE TABLE old (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content_hash TEXT NOT NULL, title TEXT,
    url TEXT, format TEXT NOT NULL, chunks INTEGER NOT NULL, version INTEGER NOT NULL,
    updated_at TEXT NOT NULL, metadata TEXT NOT NULL, text TEXT NOT NULL);
INSERT INTO old SELECT number, id, content_hash, title, url, format, chunks, version, updated_at,
    metadata, text FROM documents;
DROP TABLE documents;
ALTER TABLE old RENAME TO documents;
ALTER TABLE chunks DROP COLUMN place;
ALTER TABLE chunks DROP COLUMN checksum;
ALTER TABLE vectors DROP COLUMN checksum;
ALTER TABLE sparse_vectors DROP COLUMN checksum;
DELETE FROM meta WHERE name IN ('checksum', 'generation', 'made_at', 'recency', 'readers');
UPDATE meta SET name = 'generation' WHERE name = 'writes';
PRAGMA user_version = 3;
"""
TO_2 = """
DROP TABLE sparse_vectors;
DELETE FROM meta WHERE name = 'sparse';
PRAGMA user_version = 2;
"""
TO_1 = """
DROP TABLE facts;
DROP TABLE restricted;
DELETE FROM meta WHERE name = 'curate';
PRAGMA user_version = 1;
"""


def made(parent: Path, back: str, *, sparse: bool) -> Path:
    """A closed data folder of the layout before generations, whose corpus "c" went `back` to an
    older schema: 200 documents, every tenth red."""
    catalog = Catalog.open(parent / "corpora")
    catalog.create(CorpusSpec("c"), STAMP, sparse=sparse)
    documents = [
        document(
            f"d{number}",
            ["common words"],
            metadata={
                "team": "blue" if number % 10 else "red",
                "day": f"20{10 + number % 20}-05-01",
                "tags": ["x" * 100, f"t{number}"],
            },
        )
        for number in range(200)
    ]
    catalog.get("c").write([weighed(one) for one in documents] if sparse else documents)
    catalog.close()
    corpus = parent / "corpora" / "c"
    for path in (corpus / "g1").iterdir():
        path.rename(corpus / path.name)
    (corpus / "g1").rmdir()
    (corpus / "live.json").unlink()
    (parent / "corpora" / "format.json").write_text('{"format": 1}')
    with sqlite3.connect(corpus / "corpus.db") as db:
        db.executescript(f"BEGIN; {back} COMMIT")
    db.close()
    return parent / "corpora"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One of schema 1."""
    return made(tmp_path, TO_3 + TO_2 + TO_1, sparse=False)


def file(folder: Path) -> Path:
    """Where its database is now."""
    (found,) = (folder / "c").rglob("corpus.db")
    return found


def schema(folder: Path) -> tuple[int, set[str]]:
    """The schema's number, and the tables that there are."""
    with sqlite3.connect(file(folder)) as db:
        (number,) = db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    db.close()
    return number, tables & {"facts", "restricted"}


def numbers(folder: Path) -> list[int]:
    """Of the documents, ascending."""
    with closing(sqlite3.connect(file(folder))) as db:
        return [number for (number,) in db.execute("SELECT number FROM documents ORDER BY number")]


def assert_upgraded(folder: Path) -> None:
    """Filters find what they should, and permissions work, once it has been opened."""
    catalog = Catalog.open(folder)
    assert catalog.damaged == {}
    store = catalog.get("c")
    assert (store.info.writes, store.info.generation, store.info.curate) == (1, 1, True)
    assert list(store.verify()) == []
    assert len(store.bm25("common", 500, RED)) == 20
    assert len(store.dense(vector_of("common words"), 500, RECENT)) == 40
    (chunk,) = store.fetch(store.keys_of("d7")).values()
    assert (chunk.text, chunk.place) == ("common words", NOWHERE)
    assert numbers(folder) == list(range(1, 201))
    new = document("d1", ["common words"], readers=("hr",))
    store.write([weighed(new) if store.info.sparse else new])
    assert len(store.bm25("common", 500, Scope(readers=frozenset()))) == 199
    assert numbers(folder)[-1] == 201  # never one that was there before
    assert list(store.verify()) == []
    catalog.close()
    assert schema(folder) == (SCHEMA, {"facts", "restricted"})


@pytest.mark.parametrize(("number", "back", "sparse"), [(2, TO_3 + TO_2, False), (3, TO_3, True)])
def test_outlines_places_and_checksums_are_made(
    tmp_path: Path, number: int, back: str, sparse: bool
) -> None:
    folder = made(tmp_path, back, sparse=sparse)
    assert schema(folder)[0] == number
    assert_upgraded(folder)


def test_facts_are_made_of_the_documents_that_are_there(folder: Path) -> None:
    assert schema(folder) == (1, set())
    assert_upgraded(folder)


def test_a_process_that_dies_meanwhile_leaves_the_old_schema(folder: Path) -> None:
    die = (
        "import os, sys, pathlib\n"
        "from services.retrieve.stores.local import facts\n"
        "from services.retrieve.corpus.catalog import Catalog\n"
        "store, seen = facts.store_facts, []\n"
        "def dying(db, document, *more):\n"
        "    store(db, document, *more)\n"
        "    if document == 150:\n"
        "        os._exit(9)\n"
        "facts.store_facts = dying\n"
        "Catalog.open(pathlib.Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", die, str(folder)], env=environment, check=False)
    assert killed.returncode == 9
    assert schema(folder) == (1, set())
    assert_upgraded(folder)


@pytest.mark.parametrize("size", [100, 4096, 20_000, 60_000])
def test_a_full_disk_leaves_the_old_schema_and_says_so(folder: Path, size: int) -> None:
    with files_no_longer_than(size):
        catalog = Catalog.open(folder)
    assert str(folder / "c") in catalog.damaged["c"]
    assert "free space" in catalog.damaged["c"]
    catalog.close()
    assert schema(folder) == (1, set())
    assert_upgraded(folder)


def test_metadata_that_can_not_be_read_is_damage_and_the_old_schema_stays(folder: Path) -> None:
    backup = shutil.copy(file(folder), folder / "backup")
    with sqlite3.connect(file(folder)) as db:
        db.execute("UPDATE documents SET metadata = '{\"team\": ' WHERE id = 'd77'")
    db.close()
    catalog = Catalog.open(folder)
    assert str(file(folder)) in catalog.damaged["c"]
    catalog.close()
    assert schema(folder) == (1, set())
    for part in (folder / "c" / "g1").glob("corpus.db*"):
        part.unlink()
    shutil.copy(backup, folder / "c" / "g1" / "corpus.db")
    assert_upgraded(folder)
