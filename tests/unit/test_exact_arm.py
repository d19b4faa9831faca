"""The exact arm of all corpora: built once for each state, within a bound, over real stores."""

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from shared.errors import ApiError
from tests.corpora import STAMP, document


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "corpora")
    yield opened
    opened.close()


def corpus(catalog: Catalog, name: str, *texts: str) -> CorpusStore:
    catalog.create(CorpusSpec(name), STAMP)
    store = catalog.get(name)
    store.write([document(f"{name}-{n}", [text]) for n, text in enumerate(texts)])
    return store


def found(arm: ExactArm, store: CorpusStore, query: str) -> list[str]:
    keys = [key for key, _ in arm.of(store).search(query, 10)]
    return [record.document_id for record in store.fetch(keys).values()]


def test_it_is_built_once_for_each_state_of_a_corpus(catalog: Catalog) -> None:
    arm, store = ExactArm(), corpus(catalog, "a", "a red kite", "a blue boat")
    assert found(arm, store, "kite") == ["a-0"]
    assert arm.of(store) is arm.of(store)
    before = arm.of(store)
    store.write([document("later", ["another kite"])])
    assert arm.of(store) is not before
    assert set(found(arm, store, "kite")) == {"a-0", "later"}


def test_a_corpus_that_was_made_anew_is_not_taken_for_the_old_one(catalog: Catalog) -> None:
    arm = ExactArm()
    assert found(arm, corpus(catalog, "a", "a red kite"), "kite") == ["a-0"]
    catalog.delete("a")
    again = corpus(catalog, "a", "a blue boat")
    assert found(arm, again, "kite") == []
    assert found(arm, again, "boat") == ["a-0"]


def test_the_corpus_that_was_built_first_makes_room(catalog: Catalog) -> None:
    arm = ExactArm(most_chunks=3)
    first, second = corpus(catalog, "a", "one", "two"), corpus(catalog, "b", "three", "four")
    held = arm.of(first)
    assert arm.of(second) is arm.of(second)
    assert arm.of(first) is not held


class Held:
    """A store that gives its texts only when it is told to."""

    def __init__(self, store: CorpusStore) -> None:
        self._store = store
        self.begun, self.free = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def bodies(self) -> Iterator[tuple[int, str]]:
        self.begun.set()
        assert self.free.wait(60)
        yield from self._store.bodies()


def refused(arm: ExactArm, store: CorpusStore) -> None:
    with pytest.raises(ApiError) as caught:
        arm.of(store)
    assert (caught.value.status, caught.value.code) == (503, "arm_busy")
    assert int(caught.value.headers["Retry-After"]) >= 1


def test_nobody_waits_while_a_corpus_is_read_and_other_corpora_are_searched(
    catalog: Catalog,
) -> None:
    arm = ExactArm(most_chunks=4)
    other, third = corpus(catalog, "b", "three"), corpus(catalog, "c", "four", "five", "six")
    slow: Any = Held(corpus(catalog, "a", "one", "two"))
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(arm.of, slow)
        try:
            assert slow.begun.wait(60)
            refused(arm, slow)
            assert found(arm, other, "three") == ["b-0"]
            refused(arm, third)  # with it they would be over the limit
            assert arm.of(other) is arm.of(other)
        finally:
            slow.free.set()
        built = building.result(60)
    assert arm.of(slow) is built
    assert len(arm.of(third)) == 3


def test_a_build_that_fails_leaves_the_way_free(catalog: Catalog) -> None:
    arm, store = ExactArm(), corpus(catalog, "a", "one")

    class Failing(Held):
        def bodies(self) -> Iterator[tuple[int, str]]:
            if not self.free.is_set():
                raise ApiError(500, "corpus_damaged", "damaged")
            return self._store.bodies()

    failing: Any = Failing(store)
    with pytest.raises(ApiError, match="damaged"):
        arm.of(failing)
    failing.free.set()
    assert found(arm, failing, "one") == ["a-0"]


def test_a_deleted_corpus_is_not_kept_alive(catalog: Catalog) -> None:
    arm, store = ExactArm(), corpus(catalog, "a", "a red kite")
    gone, built = weakref.ref(store), weakref.ref(arm.of(store))
    catalog.delete("a")
    del store
    gc.collect()
    assert (gone(), built()) == (None, None)


def test_a_corpus_that_is_too_large_is_refused_with_the_way_out(catalog: Catalog) -> None:
    arm, store = ExactArm(most_chunks=1), corpus(catalog, "a", "one", "two")
    with pytest.raises(ApiError) as caught:
        arm.of(store)
    assert (caught.value.status, caught.value.code) == (422, "corpus_too_large")
    assert "arm bm25" in caught.value.message
