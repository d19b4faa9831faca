"""A corpus in Qdrant: what is asked of it, what is read back whole, and what disagrees.

Qdrant is qdrant-client's mode in memory; the catalogue a real SQLite file and a real
PostgreSQL.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.stores.base import Scope
from services.retrieve.stores.corpus import Preferences, RecencyDefault
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.outline import Mark, Place
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.store import QdrantStore
from tests.corpora import document, vector_of, weighed, words_of
from tests.qdrant import cut, memory_link, qdrant_engine, replica, texts, write


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


def test_all_arms_are_searched_in_one_request(
    store: QdrantStore, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, document("a", ["word one", "word two"]), document("b", ["word three"]))
    asked: list[int] = []
    real = link.client.query_batch_points

    def counted(collection: str, requests: list[Any], **more: Any) -> Any:
        asked.append(len(requests))
        return real(collection, requests, **more)

    monkeypatch.setattr(link.client, "query_batch_points", counted)
    lists = store.lists(5, words="one", vector=vector_of("word two"), sparse=words_of("word"))
    assert asked == [3]
    assert lists == (
        store.bm25("one", 5),
        store.dense(vector_of("word two"), 5),
        store.sparse(words_of("word"), 5),
    )
    assert store.lists(5, words="one")[1:] == ([], [])


@pytest.mark.parametrize("exact", [True, False])
def test_vectors_that_are_kept_as_bytes_are_scored_as_they_were_written(
    store: QdrantStore, link: Link, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr("services.retrieve.stores.qdrant.store.EXACT", 10_000 if exact else 0)
    write(store, document("a", ["word"]))
    asked: list[Any] = []
    real = link.client.query_batch_points

    def noted(collection: str, requests: list[Any], **more: Any) -> Any:
        asked.extend(requests)
        return real(collection, requests, **more)

    monkeypatch.setattr(link.client, "query_batch_points", noted)
    store.dense(vector_of("word"), 5)
    for params in (one.params for one in asked):
        told = params.quantization
        assert told.ignore if params.exact else (told.rescore and told.oversampling > 1)
    assert asked[0].params.exact is exact


def test_revisions_are_of_one_state(store: QdrantStore) -> None:
    write(store, document("b", ["word"]), document("a", ["word"]))
    first = {one.id: one for one in store.revisions()}
    assert list(first) == ["a", "b"]
    write(store, document("a", ["word more"]))
    reading = store.revisions()
    begun = [next(reading)]
    store.delete(["b"])
    second = {one.id: one for one in [*begun, *reading]}
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert [one.id for one in store.revisions()] == ["a"]


def test_whole_documents_are_as_they_were_written(store: QdrantStore) -> None:
    plain = weighed(document("a", ["word one", "zwei"], "Title", {"n": 1}, ("hr",)))
    mark = Mark("heading", 0, 4, "Title", 1)
    place = Place(("Title",), (1, 2), "python", (0, 3), (0, 8))
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    written = replace(
        plain,
        chunks=[replace(plain.chunks[0], place=place), plain.chunks[1]],
        sparse=[(plain.sparse or [])[0], words_of("")],
        outline=(mark,),
        url="https://x.example/a",
        version=5,
        updated_at=moment,
    )
    store.write([written])
    (revision,) = store.revisions()
    assert revision.version == 5
    (found,) = store.whole(["nobody", "a"]).values()
    assert (found.vectors == written.vectors).all()
    assert found.sparse is not None
    assert written.sparse is not None
    for one, other in zip(found.sparse, written.sparse, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.weights.tolist() == other.weights.tolist()
    assert replace(found, vectors=written.vectors, sparse=None) == replace(written, sparse=None)
    record = store.fetch(store.keys_of("a"))[store.keys_of("a")[0]]
    assert (record.place, record.updated_at) == (place, moment)
    stored = store.document("a")
    assert stored is not None
    assert (stored.outline, stored.version, stored.updated_at) == ((mark,), 5, moment)


def test_a_copy_with_characters_that_no_parser_leaves_is_kept_without_them(
    store: QdrantStore,
) -> None:
    write(store, document("a", ["one \0 word"], title="t\0"))
    stored = store.document("a")
    assert stored is not None
    assert (stored.text, stored.title) == ("one \ufffd word", "t\ufffd")
    assert texts(store) == {"a#0": "one \ufffd word"}
    assert list(store.verify()) == []


def test_documents_are_listed_by_prefix_and_scope(store: QdrantStore) -> None:
    names = ["a/1", "a/2", "b/1", "a", "a0", "\U0010ffff", "ab", "a/\U0010ffff", "\ud7ff"]
    write(store, *(document(name, ["word"], metadata={"n": len(name)}) for name in names))

    def listed(prefix: str, scope: Scope = Scope()) -> list[str]:  # noqa: B008 - a frozen value
        return [one.id for one in store.documents(100, None, scope, prefix)]

    for prefix in ("", "a", "a/", "\U0010ffff", "\ud7ff", "zzz"):
        assert listed(prefix) == sorted(name for name in names if name.startswith(prefix))
    long = Scope(parse_filter({"type": "gte", "key": "n", "value": 3}))
    assert listed("a", long) == ["a/1", "a/2", "a/\U0010ffff"]
    assert [one.id for one in store.documents(1, "a/1", long, "a")] == ["a/2"]


def test_preferences_are_changed_for_every_replica(
    engine: QdrantEngine, store: QdrantStore
) -> None:
    wanted = Preferences("all of it", False, RecencyDefault(7.0, 0.5, "date"), ("hr",))
    info = store.configure(wanted)
    for one in (info, replica(engine).open("c").info):
        assert (one.description, one.curate) == ("all of it", False)
        assert (one.recency, one.readers) == (wanted.recency, ("hr",))
    assert store.configure(Preferences(readers=())).readers == ()


def test_the_average_length_follows_a_corpus_while_it_is_small(store: QdrantStore) -> None:
    write(store, document("first", ["word"]))
    write(store, *(document(f"d{n}", ["word " + "filler " * 30]) for n in range(40)))
    state = store.standing.read()
    assert state.average == pytest.approx(state.terms / state.info.chunks, rel=0.02)
    first, *others = (score for _, score in store.bm25("word", 50))
    assert first > others[0]
    assert len(set(others)) == 1
    assert list(store.verify()) == []


DAMAGES: dict[str, tuple[Callable[[Link, str, int], Any], str]] = {
    "a point is gone": (
        lambda link, name, key: link.client.delete(name, models.PointIdsList(points=[key])),
        "has 1 points of 2",
    ),
    "another text": (
        lambda link, name, key: link.client.set_payload(name, {"text": "word x"}, points=[key]),
        "another text",
    ),
    "another vector": (
        lambda link, name, key: link.client.update_vectors(
            name, [models.PointVectors(id=key, vector={"dense": [0.5] * 16})]
        ),
        "not of length 1",
    ),
    "no words": (
        lambda link, name, key: link.client.delete_vectors(name, ["words"], points=[key]),
        "other words",
    ),
    "a stranger": (
        lambda link, name, _: link.client.upsert(
            name, [models.PointStruct(id=2**40, vector={"dense": [0.25] * 16}, payload={})]
        ),
        "belongs to no document",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_disagrees_is_told(store: QdrantStore, link: Link, damage: str) -> None:
    write(store, document("a", ["word one", "word two"]), document("b", ["word three"]))
    assert list(store.verify()) == []
    harm, told = DAMAGES[damage]
    harm(link, store._points.collection, store.keys_of("a")[1])
    findings = list(store.verify())
    assert any(told in one.what for one in findings), findings
