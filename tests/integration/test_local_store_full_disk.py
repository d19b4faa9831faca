"""A disk that takes no more data, at every size at which it may fill up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import CorpusSpec
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of
from tests.fulldisk import files_no_longer_than

WORDS = [f"word{number}" for number in range(120)]


@pytest.fixture(autouse=True)
def _log_in_memory() -> Iterator[None]:
    """The limit holds for the file that pytest keeps the output in, too."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A data folder with corpus "c" and two documents in it."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write([document("old", ["first words"]), document("same", ["other words"])])
    yield catalog
    catalog.close()


def state(store: CorpusStore) -> tuple[object, ...]:
    """All that a caller can see of the corpus."""
    return (
        store.info,
        store.documents(10, None),
        store.bm25("words", 10),
        store.dense(vector_of("first words"), 10),
        store.fetch(range(400)),
    )


def large(document_id: str) -> NewDocument:
    """A document of half a megabyte."""
    return document(document_id, [f"{word} " * 40 for word in WORDS])


@pytest.mark.parametrize("size", [0, 8, 60, 500, 2000, 5000, 20_000, 60_000, 100_000])
def test_a_refused_write_changes_nothing_and_the_next_one_succeeds(
    catalog: Catalog, tmp_path: Path, size: int
) -> None:
    store = catalog.get("c")
    before = state(store)
    with files_no_longer_than(size), pytest.raises(ApiError) as failure:
        store.write([document("old", ["replaced words"]), large("big")])
    assert (failure.value.status, failure.value.code) == (507, "storage_full"), (
        failure.value.message
    )
    assert str(tmp_path) in failure.value.message
    assert state(store) == before
    store.write([document("old", ["replaced words"]), large("big")])
    assert store.info.documents == 3
    assert len(store.bm25("replaced", 5)) == 1
    assert len(store.bm25("word7", 5)) == 1
    catalog.close()
    again = Catalog.open(tmp_path / "corpora")
    assert len(again.get("c").bm25("words", 10)) == 2
    assert len(again.get("c").bm25("word119", 5)) == 1
    again.close()


def test_a_commit_that_is_refused_after_the_word_index_has_moved_on_is_undone_there_too(
    catalog: Catalog, tmp_path: Path
) -> None:
    store = catalog.get("c")
    for number in range(3):
        store.write([document(f"d{number}", ["more words"])])
    before = state(store)
    log = tmp_path / "corpora" / "c" / "g1" / "corpus.db-wal"
    # The commit has to lengthen SQLite's log; the files of the word index are far shorter.
    with files_no_longer_than(log.stat().st_size), pytest.raises(ApiError) as failure:
        store.write([document("old", ["replaced words"])])
    assert (failure.value.status, failure.value.code) == (507, "storage_full")
    assert "corpus.db" in failure.value.message
    assert state(store) == before
    assert store.bm25("replaced", 5) == []
    store.write([document("old", ["replaced words"])])
    assert len(store.bm25("replaced", 5)) == 1


@pytest.mark.parametrize("size", [0, 60, 2000])
def test_a_refused_delete_changes_nothing(catalog: Catalog, size: int) -> None:
    store = catalog.get("c")
    before = state(store)
    with files_no_longer_than(size), pytest.raises(ApiError) as failure:
        store.delete(["old"])
    assert failure.value.status == 507
    assert state(store) == before
    assert store.delete(["old"])
    assert store.bm25("first", 5) == []


@pytest.mark.parametrize("size", [0, 100, 5000, 30_000])
def test_a_corpus_that_can_not_be_made_leaves_nothing(
    catalog: Catalog, tmp_path: Path, size: int
) -> None:
    with files_no_longer_than(size), pytest.raises(ApiError) as failure:
        catalog.create(CorpusSpec("second"), STAMP)
    assert failure.value.status == 507
    assert [info.name for info in catalog.list()] == ["c"]
    names = {path.name for path in (tmp_path / "corpora").iterdir()}
    assert names == {"c", ".lock", "format.json"}
    assert catalog.create(CorpusSpec("second"), STAMP)[1]


def test_a_word_index_that_can_not_be_built_on_disk_is_searched_from_memory(
    catalog: Catalog, tmp_path: Path
) -> None:
    many = [" ".join(f"term{n}" for n in range(at, at + 500)) for at in range(0, 20_000, 500)]
    catalog.get("c").write([document("many", many)])
    catalog.close()
    folder = tmp_path / "corpora"
    meta = folder / "c" / "g1" / "lexical" / "meta.json"
    meta.write_bytes(b"rubbish")
    with files_no_longer_than(40_000):  # SQLite opens with 32 KiB, the index needs more
        full = Catalog.open(folder)
    store = full.get("c")
    assert len(store.bm25("words", 5)) == 2
    store.write([document("new", ["later words"])])
    assert len(store.bm25("words", 5)) == 3
    full.close()
    assert b"segment_id" not in meta.read_bytes()
    again = Catalog.open(folder)
    assert len(again.get("c").bm25("words", 5)) == 3
    assert b"segment_id" in meta.read_bytes()
    again.close()


def test_a_corpus_that_a_full_disk_keeps_from_opening_is_not_called_damaged(
    catalog: Catalog, tmp_path: Path
) -> None:
    catalog.close()
    folder = tmp_path / "corpora"
    with files_no_longer_than(60):
        full = Catalog.open(folder)
    assert "free space" in full.damaged["c"]
    full.close()
    again = Catalog.open(folder)
    assert again.get("c").info.documents == 2
    again.close()
