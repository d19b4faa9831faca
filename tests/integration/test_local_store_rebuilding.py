"""A word index that is built anew in the background, while its corpus is in use."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.state import rebuilding
from shared.errors import ApiError
from tests.corpora import STAMP, document
from tests.invariants import require_sound

Expected = dict[str, NewDocument]

COUNT = 150


def one(number: int, version: int = 1) -> list[str]:
    return [f"n{number} version{version} part{part}" for part in range(2)]


@pytest.fixture
def expected() -> Expected:
    """What is in the corpus."""
    return {f"d{number}": document(f"d{number}", one(number)) for number in range(COUNT)}


@pytest.fixture
def folder(tmp_path: Path, expected: Expected) -> Path:
    """A closed data folder with corpus "c", whose word index is gone."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write(list(expected.values()))
    catalog.close()
    shutil.rmtree(tmp_path / "corpora" / "c" / "g1" / "lexical")
    return tmp_path / "corpora"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Large is what has over 100 chunks, read 50 at a time; every part but the first waits for this
    to be set."""
    go_on = threading.Event()
    read = Database.bodies_after

    def waiting(database: Database, key: int, limit: int) -> list[tuple[int, str]]:
        if key > 0:
            go_on.wait(60)
        return read(database, key, limit)

    monkeypatch.setattr("services.retrieve.stores.local.following.AT_ONCE", 100)
    monkeypatch.setattr("services.retrieve.stores.local.rebuilding._PART", 50)
    monkeypatch.setattr(Database, "bodies_after", waiting)
    yield go_on
    go_on.set()


def back(store: CorpusStore) -> None:
    """Wait until all arms are there."""
    give_up = time.monotonic() + 60
    while rebuilding(store):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_the_other_arms_answer_and_writes_go_on_until_it_is_there(
    folder: Path, expected: Expected, gate: threading.Event
) -> None:
    catalog = Catalog.open(folder)
    store = catalog.get("c")
    assert 0.0 <= rebuilding(store)["bm25"] < 0.5
    with pytest.raises(ApiError, match="being built anew") as failure:
        store.bm25("part1", 5)
    assert (failure.value.status, failure.value.code) == (503, "index_rebuilding")
    assert store.terms("Two words") == ["two", "word"]
    for number in range(0, 20, 2):  # among what is read already, and what is not yet
        expected[f"d{number}"] = document(f"d{number}", one(number, version=2))
        expected[f"d{COUNT - number - 2}"] = document(f"d{COUNT - number - 2}", one(number, 3))
        expected[f"new{number}"] = document(f"new{number}", one(number + 1000))
    changed = [name for name in expected if name not in {f"d{n}" for n in range(20, COUNT - 20)}]
    store.write([expected[name] for name in changed])
    assert store.delete(["d1", "d149", "new4"]) == ["d1", "d149", "new4"]
    for name in ("d1", "d149", "new4"):
        del expected[name]
    require_sound(store, expected, arms=("dense",))
    assert any(finding.what == "it is being built anew" for finding in store.verify())
    with structlog.testing.capture_logs() as logs:
        gate.set()
        back(store)
    assert "word_index_back" in [line["event"] for line in logs]
    require_sound(store, expected)
    expected["last"] = document("last", ["written afterwards"])
    store.write([expected["last"]])
    require_sound(store, expected)
    catalog.close()
    with structlog.testing.capture_logs() as logs:
        again = Catalog.open(folder)
    assert logs == []  # taken as it is
    require_sound(again.get("c"), expected)
    again.close()


def test_a_corpus_that_is_closed_or_killed_in_the_middle_begins_again(
    folder: Path, expected: Expected, gate: threading.Event, tmp_path: Path
) -> None:
    catalog = Catalog.open(folder)
    expected["late"] = document("late", ["written in the middle"])
    catalog.get("c").write([expected["late"]])
    temporary = shutil.ignore_patterns(".tmp*")
    # As a power cut would leave it.
    shutil.copytree(folder, tmp_path / "killed" / "corpora", ignore=temporary)
    closing = threading.Thread(target=catalog.close)
    closing.start()
    gate.set()
    closing.join(30)
    assert not closing.is_alive()
    for place in (folder, tmp_path / "killed" / "corpora"):
        again = Catalog.open(place)
        back(again.get("c"))
        require_sound(again.get("c"), expected)
        again.close()


def test_a_corpus_that_is_deleted_in_the_middle_stays_deleted(
    folder: Path, gate: threading.Event
) -> None:
    catalog = Catalog.open(folder)
    threading.Timer(0.1, gate.set).start()
    catalog.delete("c")
    assert not (folder / "c").exists()
    assert catalog.create(CorpusSpec("c"), STAMP)[1]
    catalog.close()


def test_what_goes_wrong_on_the_way_is_tried_again(
    folder: Path, expected: Expected, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [MemoryError("no memory"), RuntimeError("a defect")]
    read = Database.bodies_after

    def failing(database: Database, key: int, limit: int) -> list[tuple[int, str]]:
        if key > 100 and errors:
            raise errors.pop()
        return read(database, key, limit)

    gate.set()
    monkeypatch.setattr(Database, "bodies_after", failing)
    monkeypatch.setattr("services.retrieve.stores.local.rebuilding._REST_S", 0.01)
    catalog = Catalog.open(folder)
    store = catalog.get("c")
    back(store)
    assert errors == []
    require_sound(store, expected)
    catalog.close()
