"""What an engine behind `CorpusStore` must do with sparse vectors, and a local one with its files.

A chunk's weights are made of its text: each word weighs its length.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore, NewDocument, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.local.sparse import SparseIndex
from services.retrieve.stores.local.sparse_rows import SparseRows
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of, weighed, words_of

RED = Scope(parse_filter({"type": "eq", "key": "team", "value": "red"}))
BLUE = Scope(parse_filter({"type": "eq", "key": "team", "value": "blue"}))


def sparse(
    document_id: str,
    texts: Sequence[str],
    team: str = "blue",
    readers: tuple[str, ...] | None = None,
) -> NewDocument:
    return weighed(document(document_id, texts, metadata={"team": team}, readers=readers))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """With a corpus "c" that has sparse vectors and one, "plain", that has none."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP, sparse=True)
    catalog.create(CorpusSpec("plain"), STAMP)
    yield catalog
    catalog.close()


@pytest.fixture
def store(catalog: Catalog) -> CorpusStore:
    return catalog.get("c")


def found(
    store: CorpusStore, query: str, limit: int = 50, scope: Scope | None = None
) -> list[tuple[str, float]]:
    """Chunk ids and scores of a search, in its order."""
    hits = store.sparse(words_of(query), limit, scope or Scope())
    records = store.fetch([key for key, _ in hits])
    return [(records[key].id, score) for key, score in hits]


def test_a_score_is_the_dot_product_and_what_shares_no_word_is_not_found(
    store: CorpusStore,
) -> None:
    assert store.info.sparse
    assert found(store, "anything") == []
    store.write(
        [sparse("a", ["red hen", "hen hen hen"]), sparse("b", ["blue fox"]), sparse("c", ["hen"])]
    )
    assert found(store, "red hen pecks") == [("a#0", 18.0), ("a#1", 9.0), ("c#0", 9.0)]
    assert found(store, "red hen", limit=1) == [("a#0", 18.0)]
    keys = store.keys_of("a") + store.keys_of("b")
    assert store.sparse_scores(words_of("red hen"), [*keys, 999]) == dict(
        zip(keys, [18.0, 9.0, 0.0], strict=True)
    )
    assert store.info.sparse


def test_a_replaced_or_deleted_document_takes_its_weights_along(store: CorpusStore) -> None:
    store.write([sparse("a", ["apples", "pears"]), sparse("b", ["apples"])])
    old = store.keys_of("a")
    store.write([sparse("a", ["cherries"])])
    assert found(store, "apples pears cherries") == [("a#0", 64.0), ("b#0", 36.0)]
    store.delete(["b"])
    assert found(store, "apples pears cherries") == [("a#0", 64.0)]
    assert store.sparse_scores(words_of("apples pears"), old) == {}


def test_a_scope_finds_as_many_as_there_are_and_no_other(store: CorpusStore) -> None:
    store.write(
        [
            sparse(f"d{n}", ["common " + "long" * (n % 5)], "blue" if n % 10 else "red")
            for n in range(200)
        ]
    )
    store.write([sparse("closed", ["common"], "red", readers=("hr",))])
    everyone = Scope(RED.filter, readers=frozenset())
    assert len(found(store, "common", 500)) == 201
    assert len(found(store, "common", 500, RED)) == 21
    inside = found(store, "common", 500, everyone)
    assert len(inside) == 20
    assert found(store, "common", 5, everyone) == inside[:5]
    without = dict(found(store, "common", 500))
    assert all(without[name] == score for name, score in inside)


def test_vectors_that_are_missing_or_too_many_are_refused_and_nothing_is_written(
    store: CorpusStore, catalog: Catalog
) -> None:
    good = sparse("good", ["a"])
    for bad in (
        document("bad", ["b"]),
        replace(sparse("bad", ["b"]), sparse=[]),
        replace(sparse("bad", ["b"]), sparse=[words_of("b")] * 2),
    ):
        with pytest.raises(ValueError, match=r"sparse"):
            store.write([good, bad])
    assert (store.info.documents, found(store, "a")) == (0, [])
    plain = catalog.get("plain")
    with pytest.raises(ValueError, match=r"sparse"):
        plain.write([good])
    assert plain.info.documents == 0


def test_a_corpus_without_sparse_vectors_says_so(catalog: Catalog) -> None:
    plain = catalog.get("plain")
    plain.write([document("d", ["a"])])
    assert not plain.info.sparse
    for search in (
        lambda: plain.sparse(words_of("a"), 5),
        lambda: plain.sparse_scores(words_of("a"), [1]),
    ):
        with pytest.raises(ValueError, match=r"no sparse vectors"):
            search()


def test_all_is_found_again_after_a_restart(catalog: Catalog, tmp_path: Path) -> None:
    store = catalog.get("c")
    for number in range(20):
        store.write([sparse(f"d{number}", [f"word{number % 3} and more", "\N{EM DASH}", "tail"])])
    store.delete(["d7"])
    before = found(store, "word1 tail")
    assert len(before) == 25
    catalog.close()
    opened = Catalog.open(tmp_path / "corpora")
    assert found(opened.get("c"), "word1 tail") == before
    info, created = opened.create(CorpusSpec("plain"), STAMP, sparse=True)
    assert (info.sparse, created) == (False, False)
    opened.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM sparse_vectors WHERE key = 2",
        "UPDATE sparse_vectors SET weights = x'0102' WHERE key = 2",
        "UPDATE sparse_vectors SET weights = zeroblob(8) WHERE key = 2",
        "UPDATE sparse_vectors SET weights = 'a text, no bytes' WHERE key = 2",
        "DROP TABLE sparse_vectors",
    ],
)
def test_stored_weights_that_are_none_are_damage(
    catalog: Catalog, tmp_path: Path, damage: str
) -> None:
    catalog.get("c").write([sparse("a", ["red hen", "blue hen"])])
    catalog.close()
    file = tmp_path / "corpora" / "c" / "g1" / "corpus.db"
    with sqlite3.connect(file) as db:
        db.execute(damage)
    db.close()
    opened = Catalog.open(tmp_path / "corpora")
    with pytest.raises(ApiError) as caught:
        opened.get("c")
    assert (caught.value.status, caught.value.code) == (500, "corpus_damaged")
    assert str(file) in caught.value.message
    opened.delete("c")
    opened.close()


def test_an_index_that_can_not_follow_a_write_is_made_anew(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([sparse("a", ["apples"])])

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(SparseIndex, "change", fail)
        store.write([sparse("b", ["apples and pears"])])
    assert found(store, "apples pears") == [("b#0", 61.0), ("a#0", 36.0)]


def test_what_could_not_be_merged_is_found_and_merged_by_the_next_write(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr("services.retrieve.stores.local.sparse._merged", fail)
        for number in range(5):
            store.write([sparse("a", ["apples"]), sparse(f"b{number}", ["pears"])])
    assert {line["event"] for line in logs} == {"sparse_not_merged"}
    expected = [("a#0", 36.0), *((f"b{number}#0", 25.0) for number in range(5))]
    assert sorted(found(store, "apples pears")) == expected
    assert sorted(found(store, "apples pears", scope=BLUE)) == expected
    assert store.delete(["b3"])
    assert sorted(found(store, "apples pears")) == [*expected[:4], expected[5]]
    assert len(store._following.sparse._segments) == 1  # type: ignore[attr-defined]


def test_no_search_waits_for_a_merge(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([sparse("a", ["apples"])])
    merging, go_on, merge = threading.Event(), threading.Event(), SparseIndex.merge

    def slow(index: SparseIndex) -> None:
        merging.set()
        assert go_on.wait(60)
        merge(index)

    monkeypatch.setattr(SparseIndex, "merge", slow)
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(store.write, [sparse("b", ["apples"])])
        try:
            assert merging.wait(60)
            for scope in (Scope(), BLUE, Scope(readers=frozenset())):
                search = pool.submit(found, store, "apples", 10, scope)
                assert search.result(30) == [("a#0", 36.0), ("b#0", 36.0)]
            assert not written.done()
        finally:
            go_on.set()
        assert written.result().documents == 2


def test_rows_join_in_the_order_of_their_keys() -> None:
    parts = [SparseRows.of([1, 2], [words_of("a bb"), words_of("")])]
    parts.append(SparseRows.of([5], [words_of("ccc")]))
    joined = SparseRows.joined(parts)
    assert (joined.keys.tolist(), joined.lengths.tolist()) == ([1, 2, 5], [2, 0, 1])


def test_searches_beside_writes_see_a_document_whole_or_not_at_all(store: CorpusStore) -> None:
    versions = [[f"version v{n}", "version"] for n in range(30)]
    store.write([sparse("d", versions[0], readers=("hr",))])
    done = threading.Event()
    scopes = (Scope(), BLUE, Scope(readers=frozenset({"hr"})))

    def read(scope: Scope) -> int:
        seen = 0
        while not done.is_set():
            keys = [key for key, _ in store.sparse(words_of("version"), 10, scope)]
            assert len(keys) == 2
            assert len({record.key for record in store.fetch(keys).values()}) in (0, 2)
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, scope) for scope in scopes]
        try:
            for texts in versions[1:]:
                store.write([sparse("d", texts, readers=("hr",))])
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert store.dense(vector_of("version v29"), 1)[0][0] == store.keys_of("d")[0]
