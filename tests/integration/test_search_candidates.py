"""Candidates from real stores: lists per arm and corpus, and exact scores for the window."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.search.candidates import (
    Arm,
    ChunkKey,
    exact_scores,
    fetch,
    search_vectors,
    search_words,
)
from services.retrieve.stores.base import (
    CorpusSpec,
    CorpusStore,
    ModelStamp,
    NewChunk,
    NewDocument,
)

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


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, CorpusStore]]:
    """Two corpora with the same three documents, one chunk each."""
    catalog = Catalog.open(tmp_path / "corpora")
    names = ("left", "right")
    for name in names:
        catalog.create(CorpusSpec(name), STAMP)
        catalog.get(name).write(
            [
                NewDocument(
                    id=key,
                    content_hash=key,
                    title=None,
                    url=None,
                    format="text",
                    metadata={},
                    text=text,
                    chunks=[NewChunk(text, 0, len(text), 5)],
                    vectors=VECTORS[key].reshape(1, 4),
                )
                for key, text in TEXTS.items()
            ]
        )
    yield {name: catalog.get(name) for name in names}
    catalog.close()


def found(stores: dict[str, CorpusStore], keys: list[ChunkKey]) -> list[tuple[str, str]]:
    """Corpus and document of each key."""
    records = fetch(stores, keys)
    return [(key.corpus, records[key].document_id) for key in keys]


def test_each_arm_gives_one_list_per_corpus(stores: dict[str, CorpusStore]) -> None:
    words = search_words(stores, "ocean ships", 10)
    vectors = search_vectors(stores, dict.fromkeys(stores, VECTORS["dogs"]), 2)
    assert [(run.arm, run.corpus) for run in [*words, *vectors]] == [
        (Arm.BM25, "left"),
        (Arm.BM25, "right"),
        (Arm.DENSE, "left"),
        (Arm.DENSE, "right"),
    ]
    assert found(stores, [key for key, _ in words[1].ranked]) == [("right", "ships")]
    dense = [key for key, _ in vectors[0].ranked]
    assert found(stores, dense) == [("left", "dogs"), ("left", "cats")]


def test_a_corpus_without_a_query_vector_has_no_dense_list(
    stores: dict[str, CorpusStore],
) -> None:
    assert search_vectors(stores, {}, 10) == []
    assert [run.corpus for run in search_vectors(stores, {"right": VECTORS["cats"]}, 1)] == [
        "right"
    ]


def test_what_an_arm_did_not_return_is_scored_all_the_same(
    stores: dict[str, CorpusStore],
) -> None:
    vectors = dict.fromkeys(stores, VECTORS["cats"])
    short = [*search_words(stores, "cats", 1), *search_vectors(stores, vectors, 1)]
    full = [*search_words(stores, "cats", 10), *search_vectors(stores, vectors, 10)]
    keys = sorted({key for run in full for key, _ in run.ranked})
    assert len(keys) == 6
    scores = exact_scores(stores, short, keys, "cats", vectors)
    for run in full:
        for key, score in run.ranked:
            assert scores[run.arm][key] == pytest.approx(score, abs=1e-6)
    ships = [key for key in keys if found(stores, [key])[0][1] == "ships"]
    assert [scores[Arm.BM25][key] for key in ships] == [0.0, 0.0]


def test_only_arms_that_ran_are_scored(stores: dict[str, CorpusStore]) -> None:
    runs = search_words(stores, "cats", 10)
    keys = [key for key, _ in runs[0].ranked]
    assert set(exact_scores(stores, runs, keys, "cats", {})) == {Arm.BM25}


def test_a_deleted_chunk_is_absent_from_texts_and_scores(stores: dict[str, CorpusStore]) -> None:
    vectors = dict.fromkeys(stores, VECTORS["cats"])
    before = search_vectors(stores, vectors, 10)
    keys = [key for run in before for key, _ in run.ranked]
    gone = next(key for key in keys if found(stores, [key]) == [("left", "dogs")])
    stores["left"].delete("dogs")
    after = [*search_words(stores, "cats", 10), *search_vectors(stores, vectors, 1)]
    assert gone not in fetch(stores, keys)
    scores = exact_scores(stores, after, keys, "cats", vectors)
    assert gone not in scores[Arm.BM25]
    assert gone not in scores[Arm.DENSE]
