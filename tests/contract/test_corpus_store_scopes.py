"""What every engine behind `CorpusStore` must do with filters, permissions and keys."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from services.retrieve.stores.base import EVERYTHING, CorpusStore, Scope
from services.retrieve.stores.filters import parse_filter
from tests.corpora import document, vector_of, weighed, words_of
from tests.truth_tables import HEADINGS, truths

Search = Callable[[CorpusStore, int, Scope], list[tuple[int, float]]]


def by_words(store: CorpusStore, limit: int, scope: Scope = EVERYTHING) -> list[tuple[int, float]]:
    """What the word arm finds for a question that every document here answers."""
    return store.bm25("common words", limit, scope)


def by_meaning(
    store: CorpusStore, limit: int, scope: Scope = EVERYTHING
) -> list[tuple[int, float]]:
    """What the dense arm finds."""
    return store.dense(vector_of("common words"), limit, scope)


def by_weights(
    store: CorpusStore, limit: int, scope: Scope = EVERYTHING
) -> list[tuple[int, float]]:
    """What the sparse arm finds."""
    return store.sparse(words_of("common words"), limit, scope)


both_arms = pytest.mark.parametrize("search", [by_words, by_meaning])


def only(key: str, op: str, value: Any) -> Scope:
    """The scope of one comparison."""
    return Scope(parse_filter({"type": op, "key": key, "value": value}))


def names(store: CorpusStore, hits: list[tuple[int, float]]) -> list[str]:
    """The documents of a list of hits, sorted."""
    return sorted(one.document_id for one in store.fetch([key for key, _ in hits]).values())


def fill(store: CorpusStore, count: int) -> None:
    """Documents d0, d1, … of one chunk; every hundredth is of team red, the others blue."""
    store.write(
        [
            document(
                f"d{number}",
                [f"common words and number{number} " + "more " * (number % 7)],
                metadata={"team": "blue" if number % 100 else "red", "number": number},
            )
            for number in range(count)
        ]
    )


@both_arms
def test_a_filter_gives_as_many_results_as_there_are_and_no_others(
    store: CorpusStore, search: Search
) -> None:
    fill(store, 500)
    red = only("team", "eq", "red")
    assert names(store, search(store, 50, red)) == ["d0", "d100", "d200", "d300", "d400"]
    assert len(search(store, 3, red)) == 3
    assert len(search(store, 1000, only("team", "ne", "red"))) == 495
    assert search(store, 5, only("team", "eq", "green")) == []
    assert search(store, 5, only("team", "in", [])) == []
    assert len(search(store, 1000, only("team", "nin", []))) == 500


@both_arms
def test_a_filter_changes_neither_scores_nor_order(store: CorpusStore, search: Search) -> None:
    fill(store, 300)
    every = search(store, 300, EVERYTHING)
    for scope in (
        only("number", "lt", 7),
        only("number", "gte", 7),
        only("number", "in", [5, 150, 299]),
        Scope(readers=frozenset({"hr"})),
    ):
        filtered = search(store, 300, scope)
        allowed = store.in_scope([key for key, _ in every], scope)
        assert filtered == [hit for hit in every if hit[0] in allowed]
        assert search(store, 2, scope) == filtered[:2]


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_truth_tables_of_the_handbook_hold_in_the_store(
    store: CorpusStore, heading: str
) -> None:
    table = list(truths(heading))
    store.write(
        [
            document(f"row{place}", ["common words"], metadata=metadata)
            for place, (metadata, _, _) in enumerate(table)
        ]
    )
    for place, (metadata, condition, true) in enumerate(table):
        scope = Scope(condition)
        for found in (by_words(store, 100, scope), by_meaning(store, 100, scope)):
            assert (f"row{place}" in names(store, found)) is true, (metadata, condition)
        listed = {one.id for one in store.documents(100, None, scope)}
        assert (f"row{place}" in listed) is true
        assert (store.document(f"row{place}", scope) is not None) is true


def test_filters_are_joined_by_and_and_or(store: CorpusStore) -> None:
    fill(store, 300)
    low = {"type": "lt", "key": "number", "value": 150}
    red = {"type": "eq", "key": "team", "value": "red"}
    last = {"type": "eq", "key": "number", "value": 299}
    both = Scope(parse_filter({"type": "and", "filters": [low, red]}))
    either = Scope(
        parse_filter({"type": "or", "filters": [last, {"type": "and", "filters": [red]}]})
    )
    assert names(store, by_words(store, 300, both)) == ["d0", "d100"]
    assert names(store, by_meaning(store, 300, either)) == ["d0", "d100", "d200", "d299"]


PERMISSIONS = {
    "open": None,
    "hr": ("hr",),
    "law-or-hr": ("law", "hr"),
    "anna": ("anna",),
    "sealed": (),
}


@both_arms
@pytest.mark.parametrize(
    ("readers", "seen"),
    [
        (None, {"open", "hr", "law-or-hr", "anna", "sealed"}),
        ({"hr"}, {"open", "hr", "law-or-hr"}),
        ({"anna", "law"}, {"open", "law-or-hr", "anna"}),
        ({"HR"}, {"open"}),
        (set(), {"open"}),
    ],
)
def test_a_caller_sees_what_its_names_open(
    store: CorpusStore, search: Search, readers: set[str] | None, seen: set[str]
) -> None:
    store.write(
        [
            document(name, ["common words", "more common words"], readers=allowed)
            for name, allowed in PERMISSIONS.items()
        ]
    )
    scope = Scope(readers=None if readers is None else frozenset(readers))
    assert set(names(store, search(store, 100, scope))) == seen
    assert len(search(store, 100, scope)) == 2 * len(seen)
    assert {one.id for one in store.documents(100, None, scope)} == seen
    for name, allowed in PERMISSIONS.items():
        found = store.document(name, scope)
        assert (found is not None) == (name in seen)
        assert found is None or found.readers == allowed
        keys = store.keys_of(name)
        assert len(keys) == 2
        assert store.in_scope(keys, scope) == (set(keys) if name in seen else set())


@both_arms
def test_a_filter_can_not_open_what_permissions_close(store: CorpusStore, search: Search) -> None:
    store.write(
        [
            document("mine", ["common words"], metadata={"team": "red"}, readers=("hr",)),
            document("theirs", ["common words"], metadata={"team": "red"}, readers=("law",)),
            document("other", ["common words"], metadata={"reader": "law"}, readers=("hr",)),
        ]
    )
    red = only("team", "eq", "red").filter
    assert names(store, search(store, 9, Scope(red, frozenset({"hr"})))) == ["mine"]
    anything = only("x", "ne", "x").filter
    assert names(store, search(store, 9, Scope(anything, frozenset({"hr"})))) == ["mine", "other"]
    # Readers are no metadata, and metadata opens nothing.
    assert search(store, 9, only("readers", "eq", "hr")) == []
    assert search(store, 9, only("reader", "eq", "hr")) == []


@both_arms
def test_a_document_that_is_replaced_goes_by_its_new_metadata_and_readers(
    store: CorpusStore, search: Search
) -> None:
    hr, law = Scope(readers=frozenset({"hr"})), Scope(readers=frozenset({"law"}))
    red, blue = only("team", "eq", "red"), only("team", "eq", "blue")
    store.write([document("d", ["common words"], metadata={"team": "red"}, readers=("hr",))])
    found = [len(search(store, 5, scope)) for scope in (hr, law, red, blue)]
    assert found == [1, 0, 1, 0]
    store.write([document("d", ["common words"], metadata={"team": "blue"}, readers=("law",))])
    found = [len(search(store, 5, scope)) for scope in (hr, law, red, blue)]
    assert found == [0, 1, 0, 1]
    store.write([document("d", ["common words"])])
    found = [len(search(store, 5, scope)) for scope in (hr, law, red, blue)]
    assert found == [1, 1, 0, 0]
    store.delete(["d"])
    assert [search(store, 5, scope) for scope in (hr, law, red, blue)] == [[]] * 4


def test_pages_of_a_scope_are_full(store: CorpusStore) -> None:
    fill(store, 300)
    scope = only("number", "gte", 290)
    listed: list[str] = []
    after = None
    while page := store.documents(4, after, scope):
        assert len(page) in (4, 2)
        listed += [one.id for one in page]
        after = page[-1].id
    assert listed == [f"d{number}" for number in range(290, 300)]


def test_the_same_scope_sees_each_write(store: CorpusStore) -> None:
    scope = Scope(only("team", "eq", "red").filter, frozenset({"hr"}))
    assert by_words(store, 9, scope) == []
    for number in range(5):
        store.write([document(f"d{number}", ["common words"], metadata={"team": "red"})])
        assert len(by_words(store, 9, scope)) == len(by_meaning(store, 9, scope)) == number + 1
    store.delete(["d2"])
    assert len(by_words(store, 9, scope)) == len(by_meaning(store, 9, scope)) == 4


@pytest.mark.parametrize("search", [by_words, by_meaning, by_weights])
@pytest.mark.parametrize("closed", [(), ("law",)])
def test_a_search_beside_a_write_misses_nothing_and_lets_nothing_through(
    sparse_store: CorpusStore, search: Search, closed: tuple[str, ...]
) -> None:
    """`steady` is replaced again and again, always in scope; `moving` goes in and out of it."""
    store, red = sparse_store, {"team": "red"}
    store.write([weighed(document("steady", ["common words 0", "and more"], metadata=red))])
    done = threading.Event()
    scope = Scope(only("team", "eq", "red").filter, frozenset({"hr"}))
    by_readers = Scope(readers=frozenset({"hr"}))

    def read(scope: Scope) -> int:
        seen = 0
        while not done.is_set():
            hits = search(store, 50, scope)
            texts = [one.text for one in store.fetch([key for key, _ in hits]).values()]
            assert not [text for text in texts if "closed" in text]
            # The dense arm finds both chunks of `steady`, the others the one with the words.
            assert len(hits) >= (2 if search is by_meaning else 1)
            seen += 1
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, one) for one in (scope, by_readers)]
        try:
            for turn in range(8):
                shut = turn % 2 == 0
                text = f"common words {'closed' if shut else 'open'} {turn}"
                steady = document("steady", [f"common words {turn}", "and more"], metadata=red)
                moving = document("moving", [text], None, red, closed if shut else ("hr",))
                store.write([weighed(steady), weighed(moving)])
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_keys_of_a_document_are_those_of_its_chunks_in_order(store: CorpusStore) -> None:
    store.write([document("a", ["x", "y", "z"]), document("b", ["x"])])
    keys = store.keys_of("a")
    assert [one.number for one in store.fetch(keys).values()] == [0, 1, 2]
    assert store.keys_of("nobody") == []
    store.write([document("a", ["w"])])
    assert len(store.keys_of("a")) == 1
    assert not set(keys) & set(store.keys_of("a"))


def test_only_chunks_that_there_are_are_in_a_scope(store: CorpusStore) -> None:
    fill(store, 3)
    keys = [key for key, _ in by_words(store, 9)]
    unknown = max(keys) + 1
    assert store.in_scope([*keys, unknown], EVERYTHING) == set(keys)
    assert store.in_scope([*keys, unknown], Scope(readers=frozenset())) == set(keys)
    assert store.in_scope([], EVERYTHING) == set()
    first = store.keys_of("d0")
    assert store.in_scope([*keys, unknown], only("team", "eq", "red")) == set(first)
    store.delete(["d0"])
    assert store.in_scope(keys, EVERYTHING) == set(keys) - set(first)


def test_vectors_are_those_that_were_written(store: CorpusStore) -> None:
    store.write([document("a", ["one", "two"]), document("b", ["three"])])
    first, second = store.keys_of("a")
    found = store.vectors([second, first, 999])
    assert set(found) == {first, second}
    assert found[first].dtype == np.float32
    np.testing.assert_allclose(found[first], vector_of("one"), atol=1e-6)
    np.testing.assert_allclose(found[second], vector_of("two"), atol=1e-6)
    store.delete(["a"])
    assert store.vectors([first]) == {}
    assert store.vectors([]) == {}


def test_neighbours_are_of_the_same_document_and_in_order(store: CorpusStore) -> None:
    store.write([document("a", [f"a{n}" for n in range(6)]), document("b", ["b0", "b1"])])
    a, b = store.keys_of("a"), store.keys_of("b")
    found = store.neighbours([a[2], b[1], a[5], 999, a[2]], 1)
    texts = {key: [one.text for one in records] for key, records in found.items()}
    assert texts == {a[2]: ["a1", "a2", "a3"], b[1]: ["b0", "b1"], a[5]: ["a4", "a5"]}
    assert [one.text for one in store.neighbours([a[3]], 0)[a[3]]] == ["a3"]
    assert len(store.neighbours([a[3]], None)[a[3]]) == 6
    assert store.neighbours([], None) == {}
    (same,) = store.fetch([a[2]]).values()
    assert found[a[2]][1] == same


def test_extents_are_those_of_the_neighbours(store: CorpusStore) -> None:
    store.write([document("a", [f"a{n}" for n in range(6)]), document("b", ["b0", "b1"])])
    keys = [*store.keys_of("a"), *store.keys_of("b"), 999]
    for reach in (0, 1, 2, 20, None):
        around = store.neighbours(keys, reach)
        extents = store.extents(keys, reach)
        assert set(extents) == set(around) == set(keys[:-1])
        for key, chunks in around.items():
            assert [one.number for one in chunks] == list(
                range(chunks[0].number, chunks[-1].number + 1)
            )
            told = extents[key]
            assert (told.document_id, told.start, told.end) == (
                chunks[0].document_id,
                chunks[0].start,
                chunks[-1].end,
            )
    assert store.extents([], None) == {}


def test_what_a_document_says_of_its_chunks_comes_without_their_text(store: CorpusStore) -> None:
    store.write([document("a", ["x", "y"], metadata={"n": 1}), document("b", ["z"])])
    keys = [*store.keys_of("a"), *store.keys_of("b")]
    found, records = store.described([*keys, 999]), store.fetch(keys)
    assert {key: (one.metadata, one.updated_at) for key, one in found.items()} == {
        key: (one.metadata, one.updated_at) for key, one in records.items()
    }
    assert found[keys[0]] is found[keys[1]]
    assert store.described([]) == {}


def test_bodies_are_title_and_text_of_every_chunk_by_key(store: CorpusStore) -> None:
    assert list(store.bodies()) == []
    store.write([document("a", ["one", "two"], "Title"), document("b", ["three"])])
    first, second = store.keys_of("a")
    (third,) = store.keys_of("b")
    reading = store.bodies()
    bodies = [next(reading)]
    store.delete(["b"])
    assert bodies + list(reading) == [
        (first, "Title\none"),
        (second, "Title\ntwo"),
        (third, "three"),
    ]
    assert len(list(store.bodies())) == 2


def test_readers_and_time_of_writing_are_read_back(store: CorpusStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    store.write([document("a", ["x"], readers=("law", "hr")), document("b", ["y"])])
    first, second = store.fetch([*store.keys_of("a"), *store.keys_of("b")]).values()
    assert (first.readers, second.readers) == (("law", "hr"), None)
    stored = store.document("a")
    assert stored is not None
    assert (stored.readers, stored.updated_at) == (("law", "hr"), first.updated_at)
    assert before <= first.updated_at <= datetime.now(UTC) + timedelta(seconds=1)


def test_the_dense_arm_says_how_it_searches(store: CorpusStore) -> None:
    assert store.dense_method == "exact"
