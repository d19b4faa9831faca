"""`refdesk doctor` as a person runs it: what it finds, and what it makes anew."""

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.generate.trust.database import GenerateDatabase
from services.generate.trust.ledger import Entry, Ledger
from services.retrieve.corpus.catalog import Catalog
from tests.doctored import documents, make_folder
from tests.e2e.command import refdesk_process
from tests.invariants import Wanted, require_sound


@pytest.fixture
def expected() -> dict[str, Wanted]:
    return documents()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def require_whole(data: Path, expected: dict[str, Wanted]) -> None:
    catalog = Catalog.open(data / "corpora")
    for name in ("c", "other"):
        require_sound(catalog.get(name), expected)
    catalog.close()


def test_a_folder_in_use_is_left_to_the_process_that_has_it(data: Path) -> None:
    catalog = Catalog.open(data / "corpora")
    done = refdesk_process("doctor", "--data", str(data))
    assert done.returncode == 1
    assert "in use by process" in done.stderr
    assert done.stdout == ""
    assert catalog.get("c").bm25("amber", 1)
    catalog.close()


def test_a_lost_index_is_named_and_made_anew(data: Path, expected: dict[str, Wanted]) -> None:
    shutil.rmtree(data / "corpora" / "c" / "g1" / "lexical")
    named = refdesk_process("doctor", "--data", str(data))
    assert named.returncode == 1
    assert named.stdout.startswith(f"derived: {data / 'corpora' / 'c' / 'g1' / 'lexical'}: ")
    done = refdesk_process("doctor", "--data", str(data), "--rebuild", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["findings"] == []
    assert "made anew: " in done.stderr
    require_whole(data, expected)


def test_a_record_that_was_removed_from_the_audit_trail_is_named(data: Path) -> None:
    database = GenerateDatabase.open("", data)
    ledger = Ledger(database, audit=True)
    for name in "abc":
        ledger.submit(Entry(datetime.now(UTC), name, "q", {"request_id": name})).result(10)
    ledger.close()
    database.close()
    assert refdesk_process("doctor", "--data", str(data)).returncode == 0
    with closing(sqlite3.connect(data / "generate.db")) as connection, connection:
        connection.execute("DROP TRIGGER audit_no_delete")
        connection.execute("DELETE FROM audit WHERE seq = 2")
    named = refdesk_process("doctor", "--data", str(data))
    assert named.returncode == 1
    found = f"damaged: {data / 'generate.db'}: record 2 is missing; "
    assert found in named.stdout
    told = refdesk_process("doctor", "--data", str(data), "--json")
    report = json.loads(told.stdout)
    assert (told.returncode, report["sound"]) == (1, False)
    assert [one["what"] for one in report["findings"]] == ["record 2 is missing"]
    (data / "generate.db").write_bytes(b"no database")
    broken = refdesk_process("doctor", "--data", str(data))
    assert broken.returncode == 1
    assert "generate.db: it can't be read; " in broken.stdout
