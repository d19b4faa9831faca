"""Checksums of a local corpus: what does not fit them is found, and never answered."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.retrieve.stores.local.engine import LocalEngine
from shared.errors import ApiError
from tests.corpora import document, weighed
from tests.generations import CUT, one_corpus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


@pytest.fixture
def engine(folder: Path) -> Iterator[LocalEngine]:
    with one_corpus(folder) as engine:
        yield engine


def change(folder: Path, statement: str) -> None:
    """Do what no write of ours does."""
    with sqlite3.connect(folder / "c" / "g1" / "corpus.db") as db:
        db.execute(statement)
    db.close()


FLIPS = [
    "UPDATE chunks SET text = 'Old words' WHERE key = 1",
    "UPDATE chunks SET place = '[[],null,null,null,[0,1]]' WHERE key = 1",
    "UPDATE chunks SET tokens = tokens + 1 WHERE key = 1",
    "UPDATE documents SET title = 'other' WHERE id = 'old'",
    "UPDATE documents SET metadata = '{\"a\": 1}' WHERE id = 'old'",
    "INSERT INTO restricted SELECT number, '[]' FROM documents WHERE id = 'old'",
]


@pytest.mark.parametrize("flip", FLIPS)
def test_a_chunk_that_does_not_fit_its_checksum_is_never_answered(
    engine: LocalEngine, folder: Path, flip: str
) -> None:
    store = engine.open("c")
    change(folder, flip)
    with pytest.raises(ApiError, match="checksum") as failure:
        store.fetch([1])
    assert (failure.value.status, failure.value.code) == (500, "corpus_damaged")
    assert any("checksum" in finding.what for finding in store.verify())
    store.close()


COPIED = [
    "UPDATE documents SET text = 'Old words'",
    "UPDATE documents SET outline = '[]'",
    "UPDATE documents SET url = 'other'",
    "UPDATE chunks SET text = 'Old words'",
    "UPDATE vectors SET vector = zeroblob(64)",
    "DELETE FROM chunks",
]


@pytest.mark.parametrize("flip", COPIED)
def test_a_document_that_does_not_fit_its_checksums_is_never_copied(
    engine: LocalEngine, folder: Path, flip: str
) -> None:
    store = engine.open("c")
    change(folder, flip)
    with pytest.raises(ApiError) as failure:
        store.whole(["old"])
    assert (failure.value.status, failure.value.code) == (500, "corpus_damaged")
    store.close()


def test_a_text_that_does_not_fit_its_checksum_is_never_answered(
    engine: LocalEngine, folder: Path
) -> None:
    store = engine.open("c")
    change(folder, "UPDATE documents SET text = 'Old words'")
    with pytest.raises(ApiError, match="checksum"):
        store.document("old")
    store.close()


@pytest.mark.parametrize(
    "flip",
    [
        "UPDATE vectors SET vector = zeroblob(64)",
        "UPDATE sparse_vectors SET weights = (SELECT weights FROM sparse_vectors WHERE key = 2)",
    ],
)
def test_a_vector_that_does_not_fit_its_checksum_is_never_searched(
    engine: LocalEngine, folder: Path, flip: str
) -> None:
    engine.delete("c")
    store = engine.create(replace(CUT, sparse=True))
    store.write([weighed(document(name, [f"{name} words"])) for name in ("old", "new")])
    store.close()
    change(folder, flip)
    with pytest.raises(ApiError, match="checksum") as failure:
        engine.open("c")
    assert failure.value.code == "corpus_damaged"


MORE_FLIPS = [
    ("UPDATE documents SET text = 'Old words'", "its text does not fit its checksum"),
    ("UPDATE documents SET outline = '[]'", "its text does not fit its checksum"),
    ("UPDATE vectors SET vector = zeroblob(64)", "it does not fit its checksum"),
    ("DELETE FROM vectors", "there is none"),
    ("UPDATE meta SET value = 'de' WHERE name = 'language'", "the table of settings does not fit"),
    ("DELETE FROM chunks", "it has 0 of 1 chunks"),
    ("INSERT INTO facts VALUES ('a', 'text', 'b', 1)", "filters see other metadata"),
    ("DELETE FROM documents", "belongs to nothing in documents"),
    ("DELETE FROM meta", "the table of settings does not fit"),
]


@pytest.mark.parametrize(("flip", "told"), MORE_FLIPS)
def test_whatever_disagrees_is_found(
    engine: LocalEngine, folder: Path, flip: str, told: str
) -> None:
    store = engine.open("c")
    change(folder, flip)
    found = list(store.verify())
    assert any(told in finding.what for finding in found), found
    assert all(str(folder / "c") in finding.where for finding in found)


def test_an_index_that_disagrees_is_found(engine: LocalEngine, folder: Path) -> None:
    store = engine.open("c")
    (file,) = (folder / "c" / "g1" / "lexical").glob("*.idx")
    with file.open("r+b") as data:  # in its place: it is mapped into memory
        (byte,) = data.read(1)  # of the body: Tantivy itself finds a fault in the footer
        data.seek(0)
        data.write(bytes([byte ^ 1]))
    (finding,) = store.verify()
    assert finding.where == str(file.parent)
    assert finding.what == f"{file.name} is damaged"
    store.close()
