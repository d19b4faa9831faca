"""What every engine behind `CorpusStore` must do: documents as they are copied and compared, stores
that are set up, sealed and verified."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.stores.base import CorpusStore, Metadata, NewDocument, Scope
from services.retrieve.stores.corpus import Preferences, RecencyDefault
from services.retrieve.stores.outline import Mark, Place
from services.retrieve.stores.state import RetiredError, Revision
from tests.corpora import document, vector_of, weighed, words_of
from tests.stores import STORES, OpenStore

OUTLINE = (
    Mark("page", 0, 9, number=1),
    Mark("heading", 0, 3, "Über alles", 1),
    Mark("code", 4, 9, "python"),
)
PLACE = Place(("Über alles", "More"), (1, 2), "python", (0, 3), (0, 12))
YESTERDAY = datetime(2026, 1, 30, 12, 0, 0, 5000, UTC)


def structured(document_id: str = "d") -> NewDocument:
    """A document with an outline, of which one chunk knows its place and one does not."""
    metadata: Metadata = {"tags": ["x", "y"], "price": 1.5, "open": True}
    plain = document(document_id, ["red hen", "blue fox"], "Birds", metadata, ("hr",))
    chunks = [replace(plain.chunks[0], place=PLACE), plain.chunks[1]]
    return replace(plain, chunks=chunks, outline=OUTLINE, url="http://x", format="markdown")


def same(one: NewDocument, other: NewDocument) -> bool:
    """Whether two documents are alike but for where they come from."""
    vectors = np.array_equal(one.vectors, other.vectors)
    weights = [
        [(vector.tokens.tolist(), vector.weights.tolist()) for vector in document.sparse or ()]
        for document in (one, other)
    ]
    bare: dict[str, Any] = {
        "vectors": None,
        "sparse": None,
        "version": None,
        "updated_at": None,
        "chunks": (),
    }
    return (
        vectors
        and weights[0] == weights[1]
        and list(one.chunks) == list(other.chunks)
        and replace(one, **bare) == replace(other, **bare)
    )


def test_outline_and_places_are_kept(store: CorpusStore) -> None:
    store.write([structured()])
    stored = store.document("d")
    assert stored is not None
    assert stored.outline == OUTLINE
    records = store.fetch(store.keys_of("d"))
    assert [record.place for record in records.values()] == [PLACE, Place()]
    (key, _) = store.keys_of("d")
    assert [record.place for record in store.neighbours([key], 1)[key]] == [PLACE, Place()]


def test_whole_gives_documents_as_they_were_written(sparse_store: CorpusStore) -> None:
    written = [weighed(structured("a")), weighed(document("b", ["one"]))]
    sparse_store.write(written)
    found = sparse_store.whole(["b", "nobody", "a"])
    assert list(found) == ["b", "a"]
    assert all(same(found[one.id], one) for one in written)
    stored = sparse_store.document("a")
    assert stored is not None
    assert (found["a"].version, found["a"].updated_at) == (1, stored.updated_at)


def test_a_copy_keeps_version_and_date(store: CorpusStore) -> None:
    copy = replace(structured(), version=5, updated_at=YESTERDAY)
    store.write([copy])
    stored = store.document("d")
    assert stored is not None
    assert (stored.version, stored.updated_at) == (5, YESTERDAY)
    ((revision),) = store.revisions()
    assert (revision.id, revision.version) == ("d", 5)
    assert next(iter(store.fetch(store.keys_of("d")).values())).updated_at == YESTERDAY
    store.write([structured()])
    stored = store.document("d")
    assert stored is not None
    assert stored.version == 6
    assert stored.updated_at - datetime.now(UTC) < timedelta(minutes=1)
    ((revision),) = store.revisions()
    assert revision.version == 6


def test_revisions_are_of_one_state(store: CorpusStore) -> None:
    store.write([document(f"d{n}", ["x"]) for n in range(20)])
    before = list(store.revisions())
    reading = store.revisions()
    first = next(reading)
    store.write([document("d19", ["y"]), document("d5", ["y"]), document("e", ["z"])])
    store.delete(["d7"])
    assert [first, *reading] == before
    changed = set(store.revisions()) ^ set(before)
    assert {one.id for one in changed} == {"d19", "d5", "e", "d7"}
    assert all(isinstance(one, Revision) for one in changed)


def test_several_documents_are_deleted_in_one_write(store: CorpusStore) -> None:
    store.write([document(f"d{n}", ["red hen"]) for n in range(6)])
    assert store.delete(["d3", "nobody", "d1", "d3"]) == ["d3", "d1"]
    assert (store.info.documents, store.info.writes) == (4, 2)
    assert len(store.bm25("hen", 10)) == 4
    assert store.delete([]) == []
    assert store.delete(["d3"]) == []
    assert store.info.writes == 2


def test_documents_are_listed_by_how_their_ids_begin(store: CorpusStore) -> None:
    names = ["a", "a/1", "a/2", "b/1", "a0", "ä/1", "\U0010ffff", "\U0010ffff1", "\ud7ff1", "_%"]
    store.write([document(name, ["x"], readers=("hr",)) for name in names])
    for prefix in ["", "a", "a/", "a/1", "b", "ä", "\U0010ffff", "\ud7ff", "%", "_", "c"]:
        wanted = sorted(name for name in names if name.startswith(prefix))
        assert [one.id for one in store.documents(99, None, prefix=prefix)] == wanted
        hr = Scope(readers=frozenset({"hr"}))
        assert [one.id for one in store.documents(99, None, hr, prefix)] == wanted
        assert [one.id for one in store.documents(1, "a/1", prefix=prefix)] == [
            name for name in wanted if name > "a/1"
        ][:1]


def test_preferences_can_be_changed_at_any_time(store: CorpusStore) -> None:
    store.write([document("d", ["red hen"])])
    before = store.info
    wanted = Preferences("Über uns", False, RecencyDefault(30.0, 0.5, "day"), ("hr", "ops"))
    info = store.configure(wanted)
    assert info == store.info
    found = Preferences(info.description, info.curate, info.recency, info.readers)
    assert found == wanted
    assert store.configure(Preferences()) == replace(before, description="")
    assert store.configure(Preferences(readers=())).readers == ()


def test_a_store_that_was_sealed_is_retired(store: CorpusStore) -> None:
    store.write([document("d", ["red hen"])])
    with store.sealed():
        assert len(store.bm25("hen", 5)) == 1
    for use in (
        lambda: store.write([document("e", ["x"])]),
        lambda: store.delete(["d"]),
        lambda: store.configure(Preferences("x")),
    ):
        with pytest.raises(RetiredError):
            use()
    assert len(store.bm25("hen", 5)) == len(store.dense(vector_of("red hen"), 5)) == 1
    assert store.document("d") is not None
    assert store.info.documents == 1


def test_what_fails_while_it_is_sealed_leaves_it_as_it_was(store: CorpusStore) -> None:
    with pytest.raises(ZeroDivisionError), store.sealed():
        raise ZeroDivisionError
    assert store.write([document("e", ["x"])]).documents == 1


def test_writes_that_wait_for_a_sealed_store_learn_that_it_is_retired(store: CorpusStore) -> None:
    store.write([document("d", ["red hen"])])
    waiting = threading.Barrier(4)

    def write(number: int) -> None:
        waiting.wait()
        if number == 0:
            store.delete(["d"])
        elif number == 1:
            store.configure(Preferences("x"))
        else:
            store.write([document("e", ["x"])])

    with ThreadPoolExecutor() as pool:
        with store.sealed():
            writes = [pool.submit(write, number) for number in range(3)]
            waiting.wait()
            done = threading.Event()
            assert not done.wait(0.2)
            assert not any(one.done() for one in writes)
        for one in writes:
            with pytest.raises(RetiredError):
                one.result()
    assert [one.id for one in store.documents(9, None)] == ["d"]


def test_a_sound_corpus_has_no_findings(sparse_store: CorpusStore) -> None:
    assert list(sparse_store.verify()) == []
    many = [weighed(structured(f"d{n}")) for n in range(20)]
    sparse_store.write(many)
    sparse_store.write(many[5:9])
    sparse_store.delete(["d1", "d6"])
    sparse_store.configure(Preferences("x", readers=("hr",)))
    assert list(sparse_store.verify()) == []


WORDS = st.lists(st.sampled_from(["red", "blue", "hen", "fox", "grain", "stone"]), min_size=1)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.sampled_from("abcde"), st.none() | TEXTS), min_size=1, max_size=12)


@pytest.mark.parametrize("name", list(STORES))
@given(changes=CHANGES)
@settings(max_examples=12)
def test_a_copy_of_every_document_answers_alike(
    name: str, changes: list[tuple[str, list[str] | None]]
) -> None:
    opened: OpenStore = STORES[name]
    with (
        TemporaryDirectory() as folder,
        opened(Path(folder) / "one", sparse=True) as one,
        opened(Path(folder) / "other", sparse=True) as other,
    ):
        for id_, texts in changes:
            if texts is None:
                one.delete([id_])
            else:
                one.write([weighed(document(id_, texts, f"Title {id_}", {"id": id_}))])
        for revision in one.revisions():
            (copy,) = one.whole([revision.id]).values()
            other.write([copy])
        for search in searches(one), searches(other):
            assert all(search.values()) or not one.info.documents
        assert searches(one) == searches(other)
        states = [{doc.id: doc for doc in store.documents(99, None)} for store in (one, other)]
        assert states[0] == states[1]
        alike = [
            [(at.id, at.content_hash, at.version, at.updated_at) for at in store.revisions()]
            for store in (one, other)
        ]
        assert alike[0] == alike[1]


def searches(store: CorpusStore) -> dict[str, set[tuple[str, float]]]:
    """What each arm finds: ids and scores, but for noise in the last digits."""
    every = "red blue hen fox grain stone"
    lists = {
        "bm25": store.bm25(every, 99),
        "dense": store.dense(vector_of("question"), 99),
        "sparse": store.sparse(words_of(every), 99),
    }
    found = {}
    for arm, hits in lists.items():
        records = store.fetch([key for key, _ in hits])
        found[arm] = {(records[key].id, round(score, 4)) for key, score in hits}
    return found
