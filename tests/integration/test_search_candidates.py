"""Candidates from real stores: lists per arm and corpus, and exact scores for the window."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.search.candidates import Arm, ChunkKey, Run, Shelves, Vectors
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.stores.base import EVERYTHING, NewChunk, NewDocument, Scope
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp

STAMP = ModelStamp("tiny", "r1", 4)
VECTORS = {
    "cats": np.array([1, 0, 0, 0], np.float32),
    "dogs": np.array([0.6, 0.8, 0, 0], np.float32),
    "ships": np.array([0, 0, 1, 0], np.float32),
}
TEXTS = {
    "cats": "cats chase mice and sleep",
    "dogs": "dogs chase cats",
    "ships": "ships cross the ocean",
}


def document(key: str, text: str, readers: tuple[str, ...] | None = None) -> NewDocument:
    """A document of one chunk, with the vector that is called like it."""
    return NewDocument(
        id=key,
        content_hash=key,
        title=None,
        url=None,
        format="text",
        metadata={},
        text=text,
        chunks=[NewChunk(text, 0, len(text), 5)],
        vectors=VECTORS[key].reshape(1, 4),
        readers=readers,
    )


@pytest.fixture
def shelves(tmp_path: Path) -> Iterator[Shelves]:
    """Two corpora with the same three documents, one chunk each."""
    catalog = Catalog.open(tmp_path / "corpora")
    names = ("left", "right")
    for name in names:
        catalog.create(CorpusSpec(name), STAMP)
        catalog.get(name).write([document(key, text) for key, text in TEXTS.items()])
    yield Shelves({name: catalog.get(name) for name in names}, EVERYTHING, ExactArm())
    catalog.close()


def for_each(shelves: Shelves, document: str) -> Vectors:
    """A document's vector as the query's, in every corpus."""
    return Vectors({name: [VECTORS[document]] for name in shelves.stores})


def found(shelves: Shelves, keys: list[ChunkKey]) -> list[tuple[str, str]]:
    """Corpus and document of each key."""
    records = shelves.fetch(keys)
    return [(key.corpus, records[key].document_id) for key in keys]


def test_each_arm_gives_one_list_per_corpus(shelves: Shelves) -> None:
    words = shelves.words(Arm.BM25, ["ocean ships"], 10)
    vectors = shelves.dense(for_each(shelves, "dogs"), 2)
    assert [(run.arm, run.corpus) for run in [*words, *vectors]] == [
        (Arm.BM25, "left"),
        (Arm.BM25, "right"),
        (Arm.DENSE, "left"),
        (Arm.DENSE, "right"),
    ]
    assert found(shelves, [key for key, _ in words[1].ranked]) == [("right", "ships")]
    dense = [key for key, _ in vectors[0].ranked]
    assert found(shelves, dense) == [("left", "dogs"), ("left", "cats")]


def test_a_corpus_without_a_query_vector_has_no_dense_list(
    shelves: Shelves,
) -> None:
    assert shelves.dense(Vectors(), 10) == []
    one = Vectors({"right": [VECTORS["cats"]]})
    assert [run.corpus for run in shelves.dense(one, 1)] == ["right"]


def test_what_an_arm_did_not_return_is_scored_all_the_same(
    shelves: Shelves,
) -> None:
    vectors = for_each(shelves, "cats")
    short = [*shelves.words(Arm.BM25, ["cats"], 1), *shelves.dense(vectors, 1)]
    full = [*shelves.words(Arm.BM25, ["cats"], 10), *shelves.dense(vectors, 10)]
    keys = sorted({key for run in full for key, _ in run.ranked})
    assert len(keys) == 6
    scores = shelves.scores(short, keys, "cats", vectors)
    for run in full:
        for key, score in run.ranked:
            assert scores[run.arm][key] == pytest.approx(score, abs=1e-6)
    ships = [key for key in keys if found(shelves, [key])[0][1] == "ships"]
    assert [scores[Arm.BM25][key] for key in ships] == [0.0, 0.0]


def test_only_arms_that_ran_are_scored(shelves: Shelves) -> None:
    runs = shelves.words(Arm.BM25, ["cats"], 10)
    keys = [key for key, _ in runs[0].ranked]
    assert set(shelves.scores(runs, keys, "cats", Vectors())) == {Arm.BM25}


def test_a_deleted_chunk_is_absent_from_texts_and_scores(shelves: Shelves) -> None:
    vectors = for_each(shelves, "cats")
    before = shelves.dense(vectors, 10)
    keys = [key for run in before for key, _ in run.ranked]
    gone = next(key for key in keys if found(shelves, [key]) == [("left", "dogs")])
    shelves.stores["left"].delete(["dogs"])
    after = [*shelves.words(Arm.BM25, ["cats"], 10), *shelves.dense(vectors, 1)]
    assert gone not in shelves.fetch(keys)
    scores = shelves.scores(after, keys, "cats", vectors)
    assert gone not in scores[Arm.BM25]
    assert gone not in scores[Arm.DENSE]


def test_the_lists_of_other_wordings_are_kept_apart_and_not_scored(shelves: Shelves) -> None:
    runs = shelves.words(Arm.BM25, ["cats", "ocean"], 10)
    assert [(run.corpus, run.query) for run in runs] == [
        ("left", 0),
        ("left", 1),
        ("right", 0),
        ("right", 1),
    ]
    ships = [key for key, _ in runs[1].ranked]
    assert found(shelves, ships) == [("left", "ships")]
    assert shelves.scores(runs, ships, "cats", Vectors()) == {Arm.BM25: {ships[0]: 0.0}}


def test_vectors_and_neighbours_are_asked_of_each_corpus_once(shelves: Shelves) -> None:
    [left, right] = shelves.dense(for_each(shelves, "cats"), 1)
    keys = [left.ranked[0][0], right.ranked[0][0], ChunkKey("left", 999)]
    assert {key: vector.tolist() for key, vector in shelves.chunk_vectors(keys).items()} == {
        key: VECTORS["cats"].tolist() for key in keys[:2]
    }
    assert [list(shelves.neighbours(keys, None))] == [keys[:2]]
    exact: Run = shelves.words(Arm.BM25_EXACT, ["cats"], 10)[0]
    assert set(found(shelves, [key for key, _ in exact.ranked])) == {
        ("left", "cats"),
        ("left", "dogs"),
    }


def test_a_damaged_index_of_readers_shows_nobody_anything(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path)
    catalog.create(CorpusSpec("c"), STAMP)
    store = catalog.get("c")
    store.write([document("cats", "what everyone earns", readers=("hr",))])
    with closing(sqlite3.connect(tmp_path / "c" / "g1" / "corpus.db")) as db, db:
        db.execute("UPDATE facts SET value = 'sales' WHERE kind = 'reader'")
    shelves = Shelves({"c": store}, Scope(readers=frozenset({"sales"})), ExactArm())
    (run,) = shelves.words(Arm.BM25, ["earns"], 5)
    keys = [key for key, _ in run.ranked]
    assert keys
    assert shelves.read(keys) == {}
    catalog.close()
