"""What the doctor finds in a data folder, what it makes anew, and what it leaves alone."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.doctor.__main__ import main
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.stores.local import meta
from tests.doctored import documents, make_folder
from tests.invariants import Wanted, require_sound
from tests.works import items


@pytest.fixture
def expected() -> dict[str, Wanted]:
    return documents()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


Examined = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def examined(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Examined:
    """Runs the doctor; gives its exit code and its report."""

    def run(*more: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("REFDESK_DATA_DIR", str(data))
        monkeypatch.setattr("sys.argv", ["doctor", "--json", *more])
        capsys.readouterr()
        with structlog.testing.capture_logs():
            code = main()
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert report["sound"] == (code == 0)
        return code, report

    return run


def test_a_sound_folder_is_called_sound_and_left_as_it_is(
    data: Path,
    expected: dict[str, Wanted],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REFDESK_DATA_DIR", str(data))
    monkeypatch.setattr("sys.argv", ["doctor"])
    capsys.readouterr()
    with structlog.testing.capture_logs():
        code = main()
    assert (code, *capsys.readouterr()) == (0, f"2 corpora in {data}: all is well\n", "")
    require_whole(data, expected)


def test_a_folder_that_is_none_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFDESK_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("sys.argv", ["doctor"])
    assert main() == 1
    assert "no data folder" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def require_whole(data: Path, expected: dict[str, Wanted]) -> None:
    catalog = Catalog.open(data / "corpora")
    for name in ("c", "other"):
        require_sound(catalog.get(name), expected)
    catalog.close()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def change(statement: str) -> Callable[[Path], None]:
    def run(generation: Path) -> None:
        with sqlite3.connect(generation / "corpus.db") as db:
            db.execute(statement)
        db.close()

    return run


def spoil_ids(generation: Path) -> None:
    """In SQLite's own index of the documents' ids, one has another letter."""
    file = generation / "corpus.db"
    with sqlite3.connect(file) as db:
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_documents_1'"
        ).fetchone()
    db.close()
    data = bytearray(file.read_bytes())
    start = (page - 1) * page_size
    data[data.index(b"cedar", start, start + page_size)] = ord("x")
    file.write_bytes(data)


def rubbish_for_lists(generation: Path) -> None:
    (generation / "dense").mkdir()
    (generation / "dense" / "lists").write_bytes(b"rubbish")


def cut(generation: Path) -> None:
    file = generation / "corpus.db"
    file.write_bytes(file.read_bytes()[:9000])


DERIVED: dict[str, Callable[[Path], None]] = {
    "no word index": lambda folder: shutil.rmtree(folder / "lexical"),
    "a damaged word index": lambda folder: flip(next((folder / "lexical").glob("*.term"))),
    "facts of others": change("UPDATE facts SET value = 'delta' WHERE value = 'amber'"),
    "lists that are none": rubbish_for_lists,
    "an id in SQLite's index": spoil_ids,
}


@pytest.mark.parametrize("kind", DERIVED)
def test_what_follows_from_the_documents_is_made_anew(
    data: Path, expected: dict[str, Wanted], examined: Examined, kind: str
) -> None:
    DERIVED[kind](data / "corpora" / "c" / "g1")
    code, report = examined()
    assert code == 1
    assert report["findings"]
    for finding in report["findings"]:
        assert finding["level"] == "derived"
        assert str(data / "corpora" / "c" / "g1") in finding["where"]
        assert "--rebuild" in finding["remedy"]
    code, report = examined("--rebuild")
    assert (code, report["findings"]) == (0, [])
    assert any(str(data / "corpora" / "c" / "g1") in line for line in report["rebuilt"])
    require_whole(data, expected)


DAMAGED: dict[str, Callable[[Path], None]] = {
    "a text": change("UPDATE documents SET text = 'other words' WHERE id = 'amber'"),
    "a chunk": change("UPDATE chunks SET text = 'other words' WHERE key = 1"),
    "a lost chunk": change("DELETE FROM chunks WHERE key = 2"),
    "a lost vector": change("DELETE FROM vectors WHERE key = 2"),
    "settings": change("UPDATE meta SET value = '7' WHERE name = 'dimension'"),
    "no database": lambda folder: (folder / "corpus.db").unlink(),
    "half a database": cut,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_documents_are_named_and_never_touched(
    data: Path, examined: Examined, kind: str
) -> None:
    folder = data / "corpora" / "c" / "g1"
    DAMAGED[kind](folder)
    before = (folder / "corpus.db").read_bytes() if (folder / "corpus.db").exists() else b""
    code, report = examined("--rebuild")
    assert code == 1
    found = [one for one in report["findings"] if one["level"] == "damaged"]
    assert found
    assert all(one["where"].startswith(str(folder)) for one in found)
    assert all("backup" in one["remedy"] for one in found)
    assert f"{folder}: nothing, as its database is damaged" in report["rebuilt"]
    if before:
        assert (folder / "corpus.db").read_bytes() == before
    assert (folder / "lexical").is_dir()


def test_a_broken_file_or_table_is_told_in_words(data: Path, examined: Examined) -> None:
    folder = data / "corpora" / "c" / "g1"
    (folder / "lexical" / "meta.json").write_text("rubbish")
    assert "it can't be read (" in examined()[1]["findings"][0]["what"]
    with sqlite3.connect(folder / "corpus.db") as db:
        meta.write(db, {"recency": "{"})
    db.close()
    assert "its settings can't be read (" in examined()[1]["findings"][0]["what"]


def test_the_rest_of_the_folder_is_looked_at_too(data: Path, examined: Examined) -> None:
    corpora = data / "corpora"
    (corpora / ".trash-1").mkdir()
    (corpora / "c" / "g7").mkdir()
    (data / "transfers").mkdir()
    (data / "transfers" / "backup-x").mkdir()
    database = CatalogueDatabase.open("", data)
    Jobs(database).submit("ingest", "c", {}, "me", items=items(1))
    database.close()
    code, report = examined()
    assert code == 0
    assert {one["level"] for one in report["findings"]} == {"note"}
    told = " ".join(one["where"] + one["what"] for one in report["findings"])
    for word in (".trash-1", "g7", "backup-x", "waits to be done"):
        assert word in told
    (corpora / "c" / "g7").rmdir()
    (corpora / "c" / "live.json").write_text("rubbish")
    shutil.copytree(corpora / "c" / "g1", corpora / "c" / "g2")
    (corpora / "format.json").write_text("{}")
    (data / "catalogue.db").write_bytes(b"rubbish" * 1000)
    code, report = examined()
    assert code == 1
    damaged = {Path(one["where"]).name for one in report["findings"] if one["level"] == "damaged"}
    assert damaged == {"live.json", "format.json", "catalogue.db"}
