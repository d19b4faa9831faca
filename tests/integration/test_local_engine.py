"""Generations of a local corpus: built in the dark, swapped, brought back, and cleared away."""

import errno
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local import layout
from services.retrieve.stores.local.engine import LocalEngine
from shared import durable
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of
from tests.generations import CUT, ids, one_corpus, there

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


@pytest.fixture
def engine(folder: Path) -> Iterator[LocalEngine]:
    with one_corpus(folder) as engine:
        yield engine


def swap(engine: LocalEngine, live: CorpusStore) -> CorpusStore:
    """Swap what is dark in, and give it."""
    with live.sealed():
        engine.swap("c", LATER)
    return engine.open("c")


def test_a_dark_generation_becomes_the_live_one(engine: LocalEngine, folder: Path) -> None:
    live = engine.open("c")
    live.write([document("old", ["old words"])])
    dark = engine.build(Cut(CorpusSpec("c", language="de"), STAMP, "chunker-2", sparse=False))
    assert engine.dark("c") is dark
    dark.write([document("new", ["neue Worte"])])
    assert [(one.number, one.state) for one in engine.generations("c")] == [
        (1, "live"),
        (2, "dark"),
    ]
    assert ids(live) == ["old"]
    new = swap(engine, live)
    assert new is dark
    assert (ids(new), new.info.language, new.info.chunker) == (["new"], "de", "chunker-2")
    assert (new.info.generation, new.info.writes) == (2, 3)
    assert new.info.created_at == live.info.created_at
    assert engine.dark("c") is None
    first, second = engine.generations("c")
    assert (first.state, first.until, first.cut) == ("previous", LATER, CUT)
    assert (second.state, second.documents, second.cut.chunker) == ("live", 1, "chunker-2")
    assert second.made_at >= first.made_at
    assert new.write([document("more", ["mehr"])]).writes == 4
    live.close()
    new.close()
    engine.close()
    again = LocalEngine.at(folder)
    assert ids(again.open("c")) == ["more", "new"]
    again.close()


def test_what_is_swapped_in_as_the_first_retires_no_other(engine: LocalEngine) -> None:
    engine.build(CUT)
    with pytest.raises(ApiError) as failure:
        engine.swap("c", None)
    assert (failure.value.status, failure.value.code) == (409, "corpus_exists")
    assert [one.state for one in engine.generations("c")] == ["live", "dark"]


def test_a_dark_generation_is_there_again_after_a_restart(
    engine: LocalEngine, folder: Path
) -> None:
    engine.build(CUT).write([document("new", ["new words"])])
    engine.close()
    again = LocalEngine.at(folder)
    dark = again.dark("c")
    assert dark is not None
    assert ids(dark) == ["new"]
    other = again.build(CUT)
    assert (ids(other), other.info.generation) == ([], 2)
    again.discard("c")
    again.discard("c")
    assert again.dark("c") is None
    assert there(folder) == {"live.json", "g1"}
    again.close()


def test_a_rollback_makes_the_previous_generation_the_live_one(
    engine: LocalEngine, folder: Path
) -> None:
    first = engine.open("c")
    engine.build(CUT).write([document("new", ["new words"])])
    second = swap(engine, first)
    with pytest.raises(ApiError) as failure:
        engine.swap("c", LATER)
    assert (failure.value.status, failure.value.code) == (409, "no_dark_generation")
    back = engine.revive("c")
    assert engine.dark("c") is back
    assert ids(back) == ["old"]
    back.write([document("caught-up", ["new words"])])
    third = swap(engine, second)
    assert (ids(third), third.info.generation) == (["caught-up", "old"], 3)
    assert third.info.writes > second.info.writes
    assert [(one.number, one.state) for one in engine.generations("c")] == [
        (2, "previous"),
        (3, "live"),
    ]
    third.write([document("later", ["words"])])
    assert not engine.forget("c", LATER - timedelta(seconds=1))
    del second
    assert engine.forget("c", LATER)
    assert not engine.forget("c", LATER)
    with pytest.raises(ApiError) as failure:
        engine.revive("c")
    assert (failure.value.status, failure.value.code) == (409, "no_previous_generation")
    assert there(folder) == {"live.json", "g1"}
    third.close()


def test_a_live_generation_is_opened_once(engine: LocalEngine) -> None:
    live = engine.open("c")
    assert engine.open("c") is live
    with live.sealed():
        engine.build(CUT)
        engine.swap("c", LATER)
    assert engine.open("c") is engine.open("c") is not live


def test_a_generation_is_there_as_long_as_a_search_holds_it(
    engine: LocalEngine, folder: Path
) -> None:
    live: CorpusStore = engine.open("c")
    held = live
    for number in range(2, 5):
        engine.build(CUT).write([document(f"d{number}", ["words"])])
        live = swap(engine, live)
        for path in (folder / "c").glob("g*"):
            assert path.is_dir()
    assert [key for key, _ in held.bm25("old", 5)] == held.keys_of("old")
    with ThreadPoolExecutor(8) as pool:  # more readers than connections that were open
        found = list(pool.map(held.fetch, [held.keys_of("old")] * 32))
    assert all(found)
    gone = weakref.ref(held)
    del held, found
    assert gone() is None
    assert there(folder) == {"live.json", "g3", "g4"}
    live.close()


def test_the_live_generation_can_move_to_another_engine_and_back(
    engine: LocalEngine, folder: Path, tmp_path: Path
) -> None:
    other = LocalEngine.at(tmp_path / "other")
    catalog = Catalog({"local": engine, "qdrant": other}, "local")
    live = catalog.get("c")
    other.build(CUT, above=live.info.generation).write([document("moved", ["words"])])
    assert other.names() == []
    with live.sealed():
        other.swap("c", LATER)
        catalog.reopen("c")  # as a process would find it that died here
        assert catalog.engine("c") is other
        engine.step_down("c", LATER)
        engine.step_down("c", LATER)
    catalog.reopen("c")
    assert (engine.names(), other.names()) == ([], ["c"])
    assert (ids(catalog.get("c")), catalog.get("c").info.generation) == (["moved"], 2)
    assert [one.state for one in engine.generations("c")] == ["previous"]
    catalog.delete("c")
    assert list(engine.generations("c")) == list(other.generations("c")) == []
    catalog.create(CorpusSpec("c"), STAMP)
    assert catalog.engine("c") is engine
    catalog.close()


@pytest.mark.parametrize("failures", [1, 99])
def test_a_swap_whose_folder_can_not_be_synced_loses_no_write(
    engine: LocalEngine, folder: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """What is served goes on being what the next process would serve."""
    live = engine.open("c")
    engine.build(CUT).write([document("old", ["old words"])])
    left, sync = iter(range(failures)), durable.fsync_folder

    def broken(path: Path) -> None:
        if path.name == "c" and next(left, None) is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "fsync_folder", broken)
        with pytest.raises(ApiError) as failure:
            swap(engine, live)
    assert (failure.value.status, failure.value.code) == (507, "storage_failed")
    live.write([document("new", ["acknowledged"])])
    engine.discard("c")
    live.close()
    engine.close()
    again = LocalEngine.at(folder)
    assert ids(again.open("c")) == ["new", "old"]
    again.close()


def test_a_swap_that_can_not_be_taken_back_holds(
    engine: LocalEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = engine.open("c")
    engine.build(CUT).write([document("old", ["old words"])])
    write = durable.atomic_write

    def once(path: Path, data: bytes) -> None:
        monkeypatch.setattr(layout, "atomic_write", refuse)
        write(path, data)
        refuse()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(layout, "atomic_write", once)
    served = swap(engine, live)
    served.write([document("new", ["acknowledged"])])
    served.close()
    engine.close()
    monkeypatch.undo()
    again = LocalEngine.at(folder)
    assert ids(again.open("c")) == ["new", "old"]
    again.close()


def test_a_folder_that_no_generation_is_left_in_goes_at_the_next_start(folder: Path) -> None:
    engine = LocalEngine.at(folder)
    engine.build(CUT, 1)
    engine.discard("c")
    engine.close()
    LocalEngine.at(folder).close()
    assert not (folder / "c").exists()


def test_searches_go_on_through_swap_after_swap(folder: Path) -> None:
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write([document("d0", ["words of generation 0"])])
    engine, done = catalog.engine("c"), threading.Event()
    published = 0

    def search() -> int:
        count = 0
        while not done.is_set():
            least = published
            store = catalog.get("c")
            keys = [key for key, _ in store.bm25("words", 5)]
            near = [key for key, _ in store.dense(vector_of("words"), 5)]
            (record,) = store.fetch(keys).values()
            assert near == keys
            assert int(record.document_id[1:]) >= least
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(search) for _ in range(2)]
        for number in range(1, 7):
            engine.build(CUT).write([document(f"d{number}", [f"words of generation {number}"])])
            live = catalog.get("c")
            with live.sealed():
                engine.swap("c", LATER)
                catalog.reopen("c")
            published = number
            old = weakref.ref(live)
            del live
        done.set()
        assert all(one.result() > 0 for one in searches)
    assert old() is None  # and its memory with it
    assert there(folder) == {"live.json", "g6", "g7"}
    assert catalog.get("c").info.writes >= 6
    catalog.close()
