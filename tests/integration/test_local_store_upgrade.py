"""A corpus of the schema before filters and permissions is brought to today's when it is opened."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusSpec, Scope
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.local.schema import SCHEMA
from tests.corpora import STAMP, document, vector_of
from tests.fulldisk import files_no_longer_than

RED = Scope(parse_filter({"type": "eq", "key": "team", "value": "red"}))
RECENT = Scope(parse_filter({"type": "gte", "key": "day", "value": "2026-01-01"}))


@pytest.fixture(autouse=True)
def _log_in_memory() -> Iterator[None]:
    """A limit on the size of files holds for the one that pytest keeps the output in, too."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed data folder whose corpus "c" is of schema 1: 200 documents, every tenth red."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write(
        [
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
    )
    catalog.close()
    with sqlite3.connect(tmp_path / "corpora" / "c" / "corpus.db") as db:
        db.executescript(
            "BEGIN; DROP TABLE facts; DROP TABLE restricted; PRAGMA user_version = 1; COMMIT"
        )
    db.close()
    return tmp_path / "corpora"


def schema(folder: Path) -> tuple[int, set[str]]:
    """The schema's number, and the tables that there are."""
    with sqlite3.connect(folder / "c" / "corpus.db") as db:
        (number,) = db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    db.close()
    return number, tables & {"facts", "restricted"}


def assert_upgraded(folder: Path) -> None:
    """Filters find what they should, and permissions work, once it has been opened."""
    catalog = Catalog.open(folder)
    assert catalog.damaged == {}
    store = catalog.get("c")
    assert store.info.writes == 1
    assert len(store.bm25("common", 500, RED)) == 20
    assert len(store.dense(vector_of("common words"), 500, RECENT)) == 40
    store.write([document("d1", ["common words"], readers=("hr",))])
    assert len(store.bm25("common", 500, Scope(readers=frozenset()))) == 199
    catalog.close()
    assert schema(folder) == (SCHEMA, {"facts", "restricted"})


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
    file = folder / "c" / "corpus.db"
    backup = shutil.copy(file, folder / "backup")
    with sqlite3.connect(file) as db:
        db.execute("UPDATE documents SET metadata = '{\"team\": ' WHERE id = 'd77'")
    db.close()
    catalog = Catalog.open(folder)
    assert str(file) in catalog.damaged["c"]
    catalog.close()
    assert schema(folder) == (1, set())
    for part in (folder / "c").glob("corpus.db*"):
        part.unlink()
    shutil.copy(backup, file)
    assert_upgraded(folder)
