"""When generations of a local corpus go that nothing names any more: with whoever used them last,
whatever is done to the corpora at that moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.local.store import LocalStore
from tests.corpora import document
from tests.generations import CUT, one_corpus, there

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


def second_forgotten(engine: LocalEngine) -> LocalStore:
    """The store of generation 2, which nothing names any more: 1 was brought back in its place."""
    first = engine.open("c")
    engine.build(CUT)
    with first.sealed():
        engine.swap("c", LATER)
    second = engine.open("c")
    engine.revive("c")
    with second.sealed():
        engine.swap("c", LATER)
    assert engine.forget("c", LATER)
    return second


def test_what_is_let_go_of_after_its_engine_takes_nothing_from_the_next_one(folder: Path) -> None:
    with ExitStack() as first:
        held = [second_forgotten(first.enter_context(one_corpus(folder)))]
    engine = LocalEngine.at(folder)
    dark = engine.build(CUT)
    assert dark.folder == held[0].folder
    dark.write([document("new", ["words"])])
    held.clear()
    assert there(folder) == {"live.json", "g1", "g2"}
    dark.close()
    assert [one.number for one in engine.generations("c")] == [3, 4]
    engine.close()


def test_a_corpus_made_in_the_place_of_another_keeps_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last search of the old one ends on a slow disk, while the corpus is made anew."""
    with one_corpus(folder) as engine:
        held = [second_forgotten(engine)]
        going, rename = held[0].folder, Path.rename
        began, made = threading.Event(), threading.Event()

        def slow(path: Path, target: Path) -> Path:
            if path == going and not began.is_set():
                began.set()
                made.wait(0.3)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", slow)
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(held.clear)
            assert began.wait(5)
            engine.delete("c")
            engine.create(CUT).close()
            engine.build(CUT).write([document("new", ["words"])])
            made.set()
            ended.result()
        assert there(folder) == {"live.json", "g1", "g2"}
        assert [one.number for one in engine.generations("c")] == [1, 2]
