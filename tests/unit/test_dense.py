"""The dense arm: it finds what exact search finds, within what is allowed, while it changes."""

import threading
from typing import cast

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_gpu import OnGpu, Place, gpu
from services.retrieve.stores.local.dense_rows import VectorRows
from shared.errors import StartupError
from tests.clumps import COUNT, DIMENSION, FEW, exact, keys_to, large, unit


@pytest.fixture(scope="module")
def unchanged() -> DenseIndex:
    """A large index for tests that only search."""
    return large()


@settings(max_examples=40)
@given(data=st.data())
def test_a_small_index_gives_exactly_the_best_within_what_is_allowed(data: st.DataObject) -> None:
    index, there, last = DenseIndex(4), dict[int, Vector](), 0
    pool = unit(1000, dimension=4)
    for _ in range(data.draw(st.integers(0, 5))):
        gaps = data.draw(st.lists(st.integers(1, 9), max_size=12))
        keys = [last := last + gap for gap in gaps]
        gone = data.draw(st.lists(st.integers(0, last + 3), max_size=8))
        index.change(gone, keys, pool[keys])
        there |= {key: pool[key] for key in keys}
        there = {key: row for key, row in there.items() if key not in gone}
    limit = data.draw(st.integers(-1, 40))
    allowed = data.draw(st.none() | st.sets(st.integers(0, last + 3)))
    wanted = there if allowed is None else {k: v for k, v in there.items() if k in allowed}
    inside = None if allowed is None else np.array(sorted(allowed), np.int64)
    found = index.search(pool[0], limit, inside)
    assert [key for key, _ in found] == exact(wanted, pool[0], max(limit, 0))
    assert dict(found).items() <= index.scores(pool[0], list(there)).items()
    assert len(index) == len(there)
    assert index.vectors([*there, -1]).keys() == there.keys()


def test_a_large_index_finds_nearly_all_of_the_best(unchanged: DenseIndex) -> None:
    index, rows, queries = unchanged, unit(COUNT), unit(50, seed=1)
    hits = 0
    for query in queries:
        best = set(np.argsort(-(rows @ query))[:10] + 1)
        hits += len(best & {key for key, _ in index.search(query, 10)})
    assert hits >= 0.97 * 10 * len(queries)


def test_the_same_vectors_give_the_same_lists(unchanged: DenseIndex) -> None:
    one, other = unchanged, large()
    for query in unit(20, seed=2):
        assert one.search(query, 30) == other.search(query, 30)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_a_filtered_search_gives_as_many_as_there_are_and_none_outside(
    unchanged: DenseIndex, share: float
) -> None:
    index, random = unchanged, np.random.default_rng(0)
    allowed = np.flatnonzero(random.random(COUNT) < share).astype(np.int64) + 1
    for query in unit(10, seed=3):
        for limit in (1, 10, 1000, 10**9):
            found = [key for key, _ in index.search(query, limit, allowed)]
            assert len(set(found)) == min(limit, len(allowed))
            assert np.isin(found, allowed).all()
    assert index.search(unit(1)[0], 10, np.empty(0, np.int64)) == []


def test_a_limit_above_the_count_gives_everything(unchanged: DenseIndex) -> None:
    found = unchanged.search(unit(1)[0], 10**9)
    assert sorted(key for key, _ in found) == keys_to(COUNT).tolist()


def test_every_search_after_a_change_sees_it() -> None:
    index, new = large(), unit(3000, seed=4)
    for start in range(0, 3000, 300):
        keys = np.arange(COUNT + 1 + start, COUNT + 301 + start)
        gone = list(range(start + 1, start + 201))
        index.change(gone, keys, new[start : start + 300])
        for place in (0, 150, 299):
            assert index.search(new[start + place], 1)[0][0] == keys[place]
        assert not set(gone) & {key for key, _ in index.search(unit(COUNT)[start], 500)}
    index.settle()
    assert len(index) == COUNT + 1000
    found = index.search(unit(1)[0], 10**6)
    assert len(found) == len(index)


def test_an_index_that_grows_becomes_approximate_and_one_that_shrinks_exact() -> None:
    index = DenseIndex(DIMENSION, exact=FEW)
    assert index.method == "exact"
    index.change([], keys_to(COUNT), unit(COUNT))
    index.settle()
    assert index.method == "ivf64-pq4, probes 64, rescored"
    index.change(list(range(1, COUNT - 99)), [], np.empty((0, DIMENSION), np.float32))
    index.settle()
    assert index.method == "exact"
    assert len(index.search(unit(1)[0], 1000)) == 100


def test_removed_vectors_do_not_hide_those_that_stay() -> None:
    index, rows = large(), unit(COUNT)
    query = rows[0]
    near = [key for key, _ in index.search(query, 2200)]
    index.change(near, [], np.empty((0, DIMENSION), np.float32))
    left = np.setdiff1d(keys_to(COUNT), near)
    assert len(index.search(query, 100)) == 100
    index.settle()
    found = {key for key, _ in index.search(query, 100)}
    best = set(left[np.argsort(-(rows[left - 1] @ query))[:100]].tolist())
    assert len(found & best) >= 95


def test_searches_and_changes_may_run_side_by_side() -> None:
    index, faults, ended = large(), list[BaseException](), threading.Event()

    def search() -> None:
        queries = unit(20, seed=5)
        allowed = np.arange(1, 3000, dtype=np.int64)
        try:
            while not ended.is_set():
                for query in queries:
                    assert len(index.search(query, 50)) == 50
                    assert all(key < 3000 for key, _ in index.search(query, 50, allowed))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        first = COUNT + 1 + number * 200
        gone = list(range(number * 100 + 1, number * 100 + 81))
        index.change(gone, np.arange(first, first + 200), unit(200, seed=number))
    index.settle()
    ended.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(index) == COUNT + 30 * 120


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    index = DenseIndex(2)
    with pytest.raises(ValueError, match="NaN"):
        index.change([], [1], np.array([[bad, 1]], np.float32))
    assert len(index) == 0
    for ask in (lambda v: index.search(v, 1), lambda v: index.scores(v, [1])):
        with pytest.raises(ValueError, match="NaN"):
            ask(np.array([bad, 1], np.float32))
        with pytest.raises(ValueError, match="3 numbers, not 2"):
            ask(np.ones(3, np.float32))


def test_a_change_that_is_refused_changes_nothing() -> None:
    index = DenseIndex(2, np.array([5]), np.eye(1, 2, dtype=np.float32))
    for keys in ([5], [4], [7, 6], [8, 8]):
        with pytest.raises(ValueError, match="ascend"):
            index.change([5], keys, np.eye(len(keys), 2, dtype=np.float32))
    with pytest.raises(ValueError, match="vectors"):
        index.change([5], [9], np.eye(1, 3, dtype=np.float32))
    assert list(index.scores(np.array([1, 0], np.float32), [5])) == [5]


def test_rows_that_are_removed_give_their_memory_back() -> None:
    rows = VectorRows(DIMENSION, keys_to(COUNT), unit(COUNT))
    rows.remove(keys_to(COUNT - 10))
    rows.compact()
    assert [len(block.keys) for block in rows._blocks] == [10]
    assert rows.keys().tolist() == list(range(COUNT - 9, COUNT + 1))


def test_keys_may_be_asked_for_while_the_first_rows_of_a_block_come() -> None:
    """The count of a block is raised between any two steps of the one who reads."""

    class Rising(int):
        """0 where a slice is cut at it, 1 for who asks again whether there are rows."""

        def __index__(self) -> int:
            return 0

        def __bool__(self) -> bool:
            return True

    rows = VectorRows(DIMENSION, keys_to(1), unit(1))
    rows._blocks[0].count = Rising(0)
    assert rows.keys().tolist() == []


class TestGpu:
    """The GPU's side, with an index that stays on the CPU in the place of one that is moved."""

    @pytest.mark.parametrize("flat_bytes", [2**30, 0])
    def test_it_finds_what_there_is(self, flat_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.retrieve.stores.local.dense_gpu._FLAT_BYTES", flat_bytes)
        rows = unit(COUNT)
        index = DenseIndex(DIMENSION, keys_to(COUNT), rows, place=lambda it: it, exact=FEW)
        index.settle()
        assert index.method.startswith("gpu")
        index.change(list(range(1, 101)), [], np.empty((0, DIMENSION), np.float32))
        allowed = np.arange(1, COUNT, 2, dtype=np.int64)
        for query in unit(10, seed=9):
            best = np.argsort(-(rows @ query)) + 1
            found = [key for key, _ in index.search(query, 10)]
            assert len(set(found) & set(best[best > 100][:10])) >= 9
            inside = [key for key, _ in index.search(query, 100, allowed)]
            assert len(inside) == 100
            assert np.isin(inside, allowed).all()

    def test_cuda_without_a_gpu_is_refused_with_the_way_out(self) -> None:
        assert gpu("cpu") is None
        if gpu("auto") is None:
            with pytest.raises(StartupError, match="REFDESK_DENSE_DEVICE=cuda"):
                gpu("cuda")

    def test_nothing_is_lost_where_it_gives_too_few(self) -> None:
        made = OnGpu(lambda it: it, unit(100), 100)
        made.add(keys_to(100), unit(100))
        assert len(made) == 100
        assert len(made.search(unit(1)[0], 10, np.array([3, 4], np.int64))) == 2

    def test_one_thread_at_a_time_is_at_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of all indexes: they share what FAISS keeps of the GPU."""
        monkeypatch.setattr("services.retrieve.stores.local.dense_gpu._FLAT_BYTES", 0)
        inside, met, calls = threading.Lock(), list[str](), set[str]()

        class Placed:
            """An index that notices a second caller."""

            def __init__(self, index: faiss.Index) -> None:
                self._index = index

            def __getattr__(self, name: str) -> object:
                found = getattr(self._index, name)
                if not callable(found):
                    return found

                def call(*values: object, **named: object) -> object:
                    calls.add(name)
                    if not inside.acquire(blocking=False):
                        met.append(name)
                        return found(*values, **named)
                    try:
                        threading.Event().wait(0.002)
                        return found(*values, **named)
                    finally:
                        inside.release()

                return call

        def work(seed: int) -> None:
            made = OnGpu(cast("Place", Placed), unit(200), 200)
            for part in range(10):
                made.add(keys_to(20) + 20 * part, unit(20, seed=seed))
                assert len(made.search(unit(1)[0], 5, None)) >= 5

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == {"train", "add_with_ids", "search"}
        assert not met
