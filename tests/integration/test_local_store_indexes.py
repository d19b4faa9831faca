"""The indexes of a local corpus stay in step with its database, whatever fails or is put back."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_file import packed
from services.retrieve.stores.local.dense_lists import Lists
from services.retrieve.stores.local.dense_rows import VectorRows
from services.retrieve.stores.local.lexical import LexicalIndex
from services.retrieve.stores.local.scopes import Scopes
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of

FEW = 400  # chunks above which these corpora have lists


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the corpora are."""
    return tmp_path / "corpora"


@pytest.fixture
def catalog(folder: Path) -> Iterator[Catalog]:
    """A folder with corpus "c", and one document in it."""
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write([document("old", ["first words"])])
    yield catalog
    catalog.close()


@pytest.fixture
def _soon_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = DenseIndex.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "exact", FEW)


def found(store: CorpusStore, text: str) -> str:
    """The document that the dense arm finds for a text of its own."""
    key, _ = store.dense(vector_of(text), 1)[0]
    return store.fetch([key])[key].document_id


def many(first: int, count: int) -> list[str]:
    """Texts of their own."""
    return [f"text {number}" for number in range(first, first + count)]


def tenders() -> list[threading.Thread]:
    """The threads that tend lists in the background now."""
    return [thread for thread in threading.enumerate() if thread.name == "dense-lists"]


@pytest.mark.usefixtures("_soon_approximate")
@pytest.mark.parametrize("left", [["lexical", "dense"], ["dense"], []])
def test_a_restored_database_is_searched_as_it_is(
    catalog: Catalog, folder: Path, left: list[str], tmp_path: Path
) -> None:
    """Whatever folders of the later state are left beside it."""
    catalog.get("c").write([document("kept", many(0, 1000))])
    catalog.close()
    shutil.copy(folder / "c" / "g1" / "corpus.db", tmp_path / "backup.db")
    again = Catalog.open(folder)
    again.get("c").write([document("lost", many(5000, 2000))])
    for tender in tenders():  # until it has lists of them
        tender.join()
    again.close()
    assert (folder / "c" / "g1" / "dense" / "lists").is_file()
    shutil.copy(tmp_path / "backup.db", folder / "c" / "g1" / "corpus.db")
    (folder / "c" / "g1" / "acknowledged").unlink()  # it is on purpose
    for name in {"lexical", "dense"} - set(left):
        shutil.rmtree(folder / "c" / "g1" / name)
    restored = Catalog.open(folder)
    store = restored.get("c")
    store.write([document("new", many(2000, 1000))])
    for number in range(2000, 3000, 7):
        assert found(store, f"text {number}") == "new"
    restored.close()


@pytest.mark.usefixtures("_soon_approximate")
def test_lists_of_a_corpus_that_is_deleted_are_not_saved_first(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = catalog.get("c")
    store.write([document("d", many(0, 1000))])
    for tender in tenders():
        tender.join()
    store.write([document("e", many(1000, 1))])  # too little to be saved by itself
    for tender in tenders():
        tender.join()
    saves = []

    def noted(lists: Lists, rows: VectorRows) -> bytes:
        saves.append(rows)
        return packed(lists, rows)

    monkeypatch.setattr("services.retrieve.stores.local.dense.packed", noted)
    catalog.delete("c")
    assert not saves


@pytest.mark.usefixtures("_soon_approximate")
def test_a_corpus_that_is_deleted_while_its_lists_are_saved_stays_deleted(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing, go_on = threading.Event(), threading.Event()

    def slow(lists: Lists, rows: VectorRows) -> bytes:
        packing.set()
        go_on.wait(10)
        return packed(lists, rows)

    monkeypatch.setattr("services.retrieve.stores.local.dense.packed", slow)
    catalog.get("c").write([document("d", many(0, 1000))])
    assert packing.wait(60)
    saving = tenders()
    threading.Timer(0.2, go_on.set).start()
    catalog.delete("c")
    for tender in saving:
        tender.join()
    assert not (folder / "c").exists()
    assert catalog.create(CorpusSpec("c"), STAMP)[1]


@pytest.mark.parametrize(
    ("part", "step"),
    [
        (DenseIndex, "change"),
        (VectorRows, "remove"),
        (LexicalIndex, "reload"),
        (Scopes, "change"),
        (Database, "info"),
    ],
)
@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_a_write_that_an_index_could_not_follow_is_found_all_the_same(
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    part: type,
    step: str,
    error: type[Exception],
) -> None:
    store, errors, sound = catalog.get("c"), [error()], getattr(part, step)

    def fail(*values: object) -> object:
        if errors:
            raise errors.pop()
        return sound(*values)

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(part, step, fail)
        result = store.write(
            [
                document("old", ["second words"], readers=("bob",)),
                document("new", ["third words"], readers=("ann",)),
            ]
        )
    assert [line["event"] for line in logs] == ["indexes_rebuilt"]
    assert (result.documents, result.chunks, result.writes) == (2, 2, 2)
    for _ in range(2):
        assert found(store, "second words") == "old"
        assert found(store, "third words") == "new"
        assert store.bm25("first", 5) == []
        assert len(store.bm25("words", 5)) == len(store.dense(vector_of("x"), 5)) == 2
        ann = Scope(readers=frozenset({"ann"}))
        assert [key for key, _ in store.dense(vector_of("x"), 5, ann)] == store.keys_of("new")
        assert store.in_scope([0, 1, 2, 3, 9], ann) == set(store.keys_of("new"))
        store.write([document("more", ["other things"], readers=("bob",))])
        store.delete(["more"])


def test_indexes_that_can_not_be_made_anew_are_not_searched(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = catalog.get("c")

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(DenseIndex, "change", fail)
        patch.setattr(Database, "vectors", fail)
        assert store.write([document("new", ["third words"])]).documents == 2
    for use in (
        lambda: store.dense(vector_of("x"), 1),
        lambda: store.bm25("words", 1),
        lambda: store.bm25("words", 1, Scope(readers=frozenset())),
        lambda: store.in_scope([1], Scope()),
        lambda: store.vectors([1]),
        lambda: store.write([document("newer", ["words"])]),
        lambda: store.delete(["old"]),
    ):
        with pytest.raises(ApiError, match="restart retrieve") as failure:
            use()
        assert (failure.value.status, failure.value.code) == (500, "corpus_damaged")
    assert store.document("new") is not None
    catalog.close()
    again = Catalog.open(folder)
    assert found(again.get("c"), "third words") == "new"
    again.close()
