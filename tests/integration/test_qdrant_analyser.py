"""Words of a corpus in Qdrant that another version of refdesk cut otherwise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.store import QdrantStore
from services.retrieve.stores.qdrant.tables import GENERATIONS
from shared.errors import ApiError
from tests.corpora import document, vector_of, weighed
from tests.qdrant import cut, qdrant_engine


@pytest.fixture
def store(tmp_path: Path, catalogue_url: str) -> Iterator[QdrantStore]:
    with qdrant_engine(tmp_path, url=catalogue_url) as engine:
        yield engine.create(cut(sparse=True))


def write(store: QdrantStore, *documents: NewDocument) -> None:
    store.write([weighed(one) for one in documents])


def analysed_by(store: QdrantStore, name: str) -> None:
    """Say in the catalogue that an analyser made the words of the store's generation."""
    with store._database.begin() as connection:
        connection.execute(sa.update(GENERATIONS).values(analyser=name))
    store.standing.read()


def test_words_that_another_analyser_made_are_not_searched(store: QdrantStore) -> None:
    analysed_by(store, "words-1")
    assert not store.rebuilding  # of an empty corpus they are this one's from now on
    write(store, document("a", ["word one"]))
    assert store.info.analyser == ANALYSER
    analysed_by(store, "words-1")
    assert store.rebuilding == {"bm25": 0.0}
    for search in (
        lambda: store.bm25("word", 5),
        lambda: store.lists(5, words="word", vector=vector_of("word")),
        lambda: store.bm25_scores("word", store.keys_of("a")),
    ):
        with pytest.raises(ApiError, match="refdesk reindex") as refused:
            search()
        assert (refused.value.status, refused.value.code) == (503, "index_rebuilding")
    assert len(store.dense(vector_of("word one"), 5)) == 1
    assert list(store.verify()) == []


def test_words_that_another_analyser_made_are_not_weighed_anew(store: QdrantStore) -> None:
    write(store, document("a", ["word"]), document("b", ["word after word after word"]))
    before = store.standing.state.average
    analysed_by(store, "words-1")
    store.delete(["b"])
    assert store.standing.read().average == before


def test_words_that_two_analysers_made_are_searched_by_neither_version(
    store: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, document("a", ["word one"]))
    analysed_by(store, "words-1")
    assert store.delete(["nobody"]) == []
    assert store.info.analyser == "words-1"  # that version goes on with it
    write(store, document("b", ["word two"]))
    assert store.info.analyser == ""
    store.delete(["a", "b"])
    write(store, document("c", ["word"]))
    assert store.info.analyser == ANALYSER
    real = Points.search

    def meanwhile(self: Points, askings: Any) -> Any:
        analysed_by(store, "")
        return real(self, askings)

    monkeypatch.setattr(Points, "search", meanwhile)
    with pytest.raises(ApiError, match="another version"):
        store.bm25("word", 5)
