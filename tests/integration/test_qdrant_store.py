"""A corpus in Qdrant: what dies on the way, what is left, and what is read back whole.

Qdrant is qdrant-client's mode in memory; the catalogue a real SQLite file and a real
PostgreSQL.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.stores.base import NewDocument, Scope
from services.retrieve.stores.corpus import Preferences, RecencyDefault
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.outline import Mark, Place
from services.retrieve.stores.qdrant.change import Change
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.store import QdrantStore
from services.retrieve.stores.qdrant.writer import Writer
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError
from tests.corpora import document, vector_of, weighed, words_of
from tests.qdrant import cut, memory_link, qdrant_engine, replica


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


def write(store: QdrantStore, *documents: NewDocument) -> None:
    store.write([weighed(one) for one in documents])


def texts(store: QdrantStore) -> dict[str, str]:
    """What every arm finds: the texts of all chunks by their ids, the same for each arm."""
    found = []
    for hits in store.lists(1000, words="word", vector=vector_of("word"), sparse=words_of("word")):
        records = store.fetch([key for key, _ in hits]).values()
        assert len(records) == len(hits)
        found.append({record.id: record.text for record in records})
    assert found[0] == found[1] == found[2]
    return found[0]


def points(link: Link) -> int:
    """How many points there are in all collections."""
    client = link.client
    names = [one.name for one in client.get_collections().collections]
    return sum(client.count(name).count for name in names)


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
