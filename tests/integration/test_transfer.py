"""Backups come back whole, and take a place without a loss."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer import restore as restoring
from services.retrieve.corpus.transfer.carry import Carrying
from services.retrieve.corpus.transfer.check import manifest_of
from services.retrieve.corpus.transfer.restore import restore
from services.retrieve.stores.base import CorpusStore, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.layout import DATABASE
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of, weighed
from tests.transfers import SPEC, content, later, saved, shelf, shelf_documents


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with shelf(tmp_path / "data") as catalog:
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the transfers."""
    path = tmp_path / "data" / "transfers"
    path.mkdir(parents=True)
    return path


def test_a_backup_restored_on_another_machine_is_the_same_corpus(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    assert list(folder.iterdir()) == []
    elsewhere = Catalog.open(tmp_path / "elsewhere" / "corpora")
    try:
        info, told = restore(uploaded, "copy", elsewhere, folder, None)
        before, after = catalog.get("shelf"), elsewhere.get("copy")
        assert (told.name, told.documents, told.chunks) == ("shelf", 3, 5)
        assert content(after) == content(before)
        changed = {"name", "created_at", "writes"}
        expected, found = vars(before.info), vars(info)
        assert {k: v for k, v in found.items() if k not in changed} == {
            k: v for k, v in expected.items() if k not in changed
        }
        for query in ("mond", "another text"):
            assert [
                (one.id, round(score, 5)) for one, score in named(after, after.bm25(query, 9))
            ] == [(one.id, round(score, 5)) for one, score in named(before, before.bm25(query, 9))]
        probe = vector_of("der Mond")
        assert named(after, after.dense(probe, 1))[0][0].id == "rich/ä ☂#0"
        hidden = Scope(readers=frozenset({"bob"}))
        assert [one.id for one in after.documents(9, None, hidden)] == ["plain"]
        assert list(after.verify()) == []
    finally:
        elsewhere.close()
    assert list(folder.iterdir()) == []


def named(store: CorpusStore, found: list[tuple[int, float]]) -> list[tuple[Any, float]]:
    records = store.fetch([key for key, _ in found])
    return [(records[key], score) for key, score in found]


def test_sparse_vectors_come_along(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    catalog.create(CorpusSpec("words"), STAMP, sparse=True)
    catalog.get("words").write([weighed(one) for one in shelf_documents()])
    uploaded = saved(catalog.get("words"), folder, tmp_path / "uploaded")
    info, _ = restore(uploaded, "again", catalog, folder, None)
    assert info.sparse
    assert content(catalog.get("again")) == content(catalog.get("words"))


def test_a_backup_made_document_by_document_holds_the_same(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    class Elsewhere:
        """A store that is no LocalStore: all that is known of it is the contract."""

        def __init__(self, store: CorpusStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    store: Any = Elsewhere(catalog.get("shelf"))
    restore(saved(store, folder, tmp_path / "uploaded"), "again", catalog, folder, None)
    assert content(catalog.get("again")) == content(catalog.get("shelf"))


def test_a_backup_is_of_one_moment_while_writes_go_on(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    store, done = catalog.get("shelf"), threading.Event()

    def write() -> None:
        for number in range(10_000):
            if done.is_set():
                return
            text = f"state {number}"
            store.write([document("left", [text]), document("right", [text])])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(8):
            path = saved(store, folder, tmp_path / f"u{number}") / DATABASE
            manifest_of(path)
            with closing(sqlite3.connect(path)) as db:
                rows = db.execute(
                    "SELECT text FROM documents WHERE id IN ('left', 'right')"
                ).fetchall()
            assert len(rows) in (0, 2)
            assert len(set(rows)) <= 1
    finally:
        done.set()
        writer.join()


def test_nothing_of_what_was_deleted_is_in_a_backup(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    store = catalog.get("shelf")
    store.write([document("gone", ["xylophone " * 50])])
    store.delete(["gone"])
    path = saved(store, folder, tmp_path / "uploaded") / DATABASE
    assert b"xylophone" not in path.read_bytes()


def test_a_corpus_that_is_there_is_not_replaced_unasked(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    with pytest.raises(ApiError) as refused:
        restore(uploaded, "shelf", catalog, folder, None)
    assert (refused.value.status, refused.value.code) == (409, "corpus_exists")


def test_a_corpus_that_is_replaced_is_swapped_and_kept_for_a_rollback(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    old = catalog.get("shelf")
    expected = content(old)
    old.write([document("later", ["written after the backup"])])
    info, _ = restore(uploaded, "shelf", catalog, folder, later())
    assert info.generation == 2
    assert content(catalog.get("shelf")) == expected
    states = [one.state for one in catalog.engine("shelf").generations("shelf")]
    assert states == ["previous", "live"]
    assert old.known(["later"])  # a search that is under way goes on


def test_what_is_written_while_a_backup_takes_a_corpuss_place_is_carried_over(
    catalog: Catalog, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    old = catalog.get("shelf")
    old.write([document("before", ["written before the restore"])])
    turns = iter(range(1, 9))
    carry = Carrying.carry

    def written(self: Carrying, dark: CorpusStore) -> None:
        match next(turns):
            case 1:
                old.write([document("meanwhile", ["new"]), document("plain", ["changed"])])
            case 2:
                old.delete(["secret", "meanwhile"])
            case 3:
                old.write([document("last", ["just before the swap"])])
        carry(self, dark)

    monkeypatch.setattr(Carrying, "carry", written)
    restore(uploaded, "shelf", catalog, folder, later())
    now = catalog.get("shelf")
    assert sorted(content(now)) == ["last", "plain", "rich/ä ☂"]
    assert now.whole(["plain"])["plain"].text == "changed"
    assert list(now.verify()) == []


def test_a_restore_that_can_not_carry_over_what_was_written_changes_nothing(
    catalog: Catalog, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    catalog.delete("shelf")
    catalog.create(replace(SPEC, language="en"), STAMP)
    live = catalog.get("shelf")
    fill = restoring._fill

    def written(*parts: Any) -> None:
        fill(*parts)
        live.write([document("meanwhile", ["new"])])

    monkeypatch.setattr(restoring, "_fill", written)
    with pytest.raises(ApiError, match="written to while the backup was restored") as refused:
        restore(uploaded, "shelf", catalog, folder, later())
    assert (refused.value.status, refused.value.code) == (409, "corpus_busy")
    assert catalog.get("shelf") is live
    assert list(content(live)) == ["meanwhile"]
    assert [one.state for one in catalog.engine("shelf").generations("shelf")] == ["live"]
    monkeypatch.undo()
    assert restore(uploaded, "shelf", catalog, folder, later())[0].language == "de"


def test_a_generation_that_is_being_built_is_not_thrown_away(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    engine = catalog.engine("shelf")
    engine.build(Cut.of(catalog.get("shelf").info))
    with pytest.raises(ApiError) as refused:
        restore(uploaded, "shelf", catalog, folder, later())
    assert (refused.value.status, refused.value.code) == (409, "generation_in_progress")
    assert engine.dark("shelf") is not None
