"""Writes to a corpus in Qdrant: those that die on the way, and those at the same time.

Qdrant is qdrant-client's mode in memory; the catalogue a real SQLite file and a real
PostgreSQL.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.stores.corpus import Preferences
from services.retrieve.stores.qdrant.change import Change
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.store import QdrantStore
from services.retrieve.stores.qdrant.writer import Writer
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError
from tests.corpora import document, vector_of, words_of
from tests.qdrant import cut, memory_link, points, qdrant_engine, replica, texts, write


class DiedError(BaseException):
    """As if the process were no more: nothing is put in order after it."""


@pytest.fixture
def link() -> Link:
    return memory_link()


@pytest.fixture
def engine(tmp_path: Path, link: Link, catalogue_url: str) -> Iterator[QdrantEngine]:
    with qdrant_engine(tmp_path, link, catalogue_url) as engine:
        yield engine


@pytest.fixture
def store(engine: QdrantEngine) -> QdrantStore:
    return engine.create(cut(sparse=True))


STEPS: list[tuple[type[Any], str, str]] = [
    (Change, "reserve", "before"),
    (Points, "put", "before"),
    (Points, "_put", "after"),
    (Points, "put", "after"),
    (Change, "add", "before"),
    (Change, "finish", "after"),
    (Writer, "sweep", "before"),
    (Points, "remove", "before"),
    (Points, "remove", "after"),
]


def dies(
    patch: pytest.MonkeyPatch, owner: type[Any], name: str, when: str, error: type[BaseException]
) -> None:
    """Have a method fail, before or after what it does."""
    real = getattr(owner, name)

    def failing(self: object, *parts: Any, **more: Any) -> Any:
        if when == "after":
            real(self, *parts, **more)
        raise error

    patch.setattr(owner, name, failing)


@pytest.mark.parametrize(("owner", "name", "when"), STEPS)
def test_a_write_that_dies_at_any_step_is_whole_or_not_at_all(
    tmp_path: Path, link: Link, owner: type[Any], name: str, when: str
) -> None:
    before = {"a#0": "word old", "a#1": "word older", "b#0": "word b"}
    after = {"a#0": "word new", "c#0": "word c", "b#0": "word b"}
    with qdrant_engine(tmp_path, link) as engine:
        store = engine.create(cut(sparse=True))
        write(store, document("a", ["word old", "word older"]), document("b", ["word b"]))
        assert texts(store) == before
        with pytest.MonkeyPatch.context() as patch:
            dies(patch, owner, name, when, DiedError)
            with pytest.raises(DiedError):
                write(store, document("a", ["word new"]), document("c", ["word c"]))
        # As the other replicas see it, before anything was put in order.
        expected = texts(store)
        assert expected in (before, after)
        assert [len(one) for one in store.lists(1, words="word", vector=vector_of("word"))] == [
            1,
            1,
            0,
        ]
    with qdrant_engine(tmp_path, link) as engine:
        opened = engine.open("c")
        assert texts(opened) == expected
        assert points(link) == len(expected) == opened.info.chunks
        assert list(opened.verify()) == []
        write(opened, document("a", ["word new"]), document("c", ["word c"]))
        assert texts(opened) == after
        assert points(link) == 3
        assert list(opened.verify()) == []


@pytest.mark.parametrize(("owner", "name", "when"), STEPS[:6])
def test_a_write_that_is_refused_changes_nothing_and_leaves_nothing(
    store: QdrantStore, link: Link, owner: type[Any], name: str, when: str
) -> None:
    write(store, document("a", ["word old"]))

    class RefusedError(ApiError):
        def __init__(self) -> None:
            super().__init__(507, "storage_full", "full")

    with pytest.MonkeyPatch.context() as patch:
        dies(patch, owner, name, when, RefusedError)
        with pytest.raises(ApiError, match="full"):
            write(store, document("a", ["word new"]), document("b", ["word b"]))
    assert texts(store) == {"a#0": "word old"}
    assert store.info.writes == 1
    write(store, document("b", ["word b"]))
    assert texts(store) == {"a#0": "word old", "b#0": "word b"}
    assert points(link) == 2
    assert list(store.verify()) == []


def test_a_deletion_that_dies_is_done_or_not(store: QdrantStore, link: Link) -> None:
    write(store, document("a", ["word a"]), document("b", ["word b"]))
    for owner, name, left in ((Change, "finish", 2), (Points, "remove", 1)):
        with pytest.MonkeyPatch.context() as patch:
            dies(patch, owner, name, "before", DiedError)
            with pytest.raises(DiedError):
                store.delete(["a"])
        assert len(texts(store)) == left
    assert store.delete(["a"]) == []
    store.sweep()
    assert points(link) == 1


def test_points_that_nobody_needs_take_no_place_in_a_list(
    store: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Points, "remove", lambda *_: None)
    for turn in range(20):
        write(store, document("a", [f"word word {turn}"]))
    write(store, *(document(f"b{n}", ["word and a lot more of it"]) for n in range(10)))
    assert len(store.bm25("word", 11)) == len(store.sparse(words_of("word"), 11)) == 11
    assert len(store.dense(vector_of("word word 3"), 11)) == 11
    assert len(store.bm25("word", 5)) == 5


def test_another_replica_sees_writes_and_writes_itself(
    engine: QdrantEngine, store: QdrantStore
) -> None:
    other = replica(engine).open("c")
    write(store, document("a", ["word a"]))
    assert texts(other) == {"a#0": "word a"}
    write(other, document("a", ["word again"]), document("b", ["word b"]))
    assert texts(store) == texts(other) == {"a#0": "word again", "b#0": "word b"}
    assert store.info.writes == other.info.writes == 2
    assert other.delete(["a", "nobody", "b"]) == ["a", "b"]
    assert texts(store) == {}


def test_replicas_that_write_side_by_side_lose_nothing(
    engine: QdrantEngine, store: QdrantStore
) -> None:
    replicas = [store, *(replica(engine).open("c") for _ in range(2))]
    for one in replicas:
        one._database.exclusive = False

    def load(place: int) -> None:
        for turn in range(6):
            one = document("shared", [f"word {place} {turn}"])
            write(replicas[place], document(f"d{place}-{turn}", ["word"]), one)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(load, place) for place in range(3)]:
            done.result()
    assert set(engine.look()) == {"c"}
    assert (store.info.documents, store.info.writes) == (19, 18)
    assert len(texts(store)) == 19
    stored = store.document("shared")
    assert stored is not None
    assert stored.version == 18
    assert list(store.verify()) == []


def test_a_seal_holds_writes_back_and_ends_in_retirement(
    engine: QdrantEngine, store: QdrantStore
) -> None:
    other = replica(engine).open("c")
    write(store, document("a", ["word"]))
    with pytest.raises(ZeroDivisionError), store.sealed():
        raise ZeroDivisionError
    write(store, document("b", ["word"]))
    with ThreadPoolExecutor(2) as pool:
        with store.sealed():
            waiting = pool.submit(write, store, document("c", ["word"]))
            with pytest.raises(ApiError, match="about to get another generation") as caught:
                write(other, document("d", ["word"]))
        with pytest.raises(RetiredError):
            waiting.result()
    assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
    assert not store.writable
    assert len(texts(store)) == 2
    for use in (lambda: store.delete(["a"]), lambda: store.configure(Preferences())):
        with pytest.raises(RetiredError):
            use()
