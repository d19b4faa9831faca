"""The dense arm: it finds what exact search finds, within what is allowed, while it changes."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local import dense
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_file import ListsDamagedError, load, packed, save
from services.retrieve.stores.local.dense_gpu import OnGpu, Place, gpu
from services.retrieve.stores.local.dense_lists import Lists
from services.retrieve.stores.local.dense_rows import VectorRows
from shared.errors import StartupError

DIMENSION = 32
COUNT = 5000
FEW = 500  # above it the indexes of these tests are approximate


def unit(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vector:
    """Unit vectors in clumps, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dimension))
    rows = centres[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def keys_to(count: int) -> NDArray[np.int64]:
    """The keys 1 to `count`."""
    return np.arange(1, count + 1, dtype=np.int64)


def large(folder: Path | None = None, count: int = COUNT) -> DenseIndex:
    """An index that is approximate already."""
    index = DenseIndex(DIMENSION, keys_to(count), unit(count), folder=folder, exact=FEW)
    index.settle()
    assert index.method.startswith("ivf")
    return index


@pytest.fixture(scope="module")
def unchanged() -> DenseIndex:
    """A large index for tests that only search."""
    return large()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that a large index leaves."""
    folder = tmp_path_factory.mktemp("dense")
    large(folder).close()
    return (folder / "lists").read_bytes()


def exact(rows: dict[int, Vector], query: Vector, limit: int) -> list[int]:
    """The keys that a search must give."""
    ranked = sorted(rows, key=lambda key: (-float(np.vecdot(rows[key], query)), key))
    return ranked[:limit]


@settings(max_examples=40, deadline=None)
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
    for number in range(60):
        first = COUNT + 1 + number * 200
        gone = list(range(number * 100 + 1, number * 100 + 81))
        index.change(gone, np.arange(first, first + 200), unit(200, seed=number))
    index.settle()
    ended.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(index) == COUNT + 60 * 120


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


class TestFailingBackground:
    """What fails in the background neither spins, nor ends for good, nor is seen by a search."""

    @pytest.fixture(params=[MemoryError, IndexError])
    def broken(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[list[str], threading.Event]:
        """The calls that failed, and whether they go on to fail."""
        calls, failing, sound = list[str](), threading.Event(), dict[str, Callable[..., None]]()

        def fail(name: str) -> Callable[..., None]:
            def called(lists: Lists, *values: NDArray[np.int64]) -> None:
                sound[name](lists, *(value[: len(value) // 2] for value in values))
                calls.append(name)
                if failing.is_set():
                    raise request.param
                sound[name](lists, *(value[len(value) // 2 :] for value in values))

            return called

        for name in ("add", "remove"):
            sound[name] = getattr(Lists, name)
            monkeypatch.setattr(Lists, name, fail(name))
        return calls, failing

    def assert_exact(self, index: DenseIndex, there: dict[int, Vector]) -> None:
        for query in unit(5, seed=11):
            found = [key for key, _ in index.search(query, 40)]
            assert found == exact(there, query, 40)

    @pytest.mark.parametrize("work", ["add", "remove"])
    def test_it_rests_and_searches_are_exact(
        self,
        broken: tuple[list[str], threading.Event],
        work: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls, failing = broken
        monkeypatch.setattr(dense, "_REST_S", 1000.0)
        index, there = large(), dict(zip(range(1, COUNT + 1), unit(COUNT), strict=True))
        calls.clear()
        failing.set()
        self.change(index, there, work)
        index.settle(1.0)
        assert calls == [work]
        self.assert_exact(index, there)
        index.change([], [9999], unit(1, seed=12))
        there[9999] = unit(1, seed=12)[0]
        self.assert_exact(index, there)
        index.close()  # ends the rest
        assert index._tender is None

    @pytest.mark.parametrize("work", ["add", "remove"])
    def test_it_goes_on_after_the_rest(
        self,
        broken: tuple[list[str], threading.Event],
        work: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls, failing = broken
        monkeypatch.setattr(dense, "_REST_S", 0.01)
        monkeypatch.setattr(dense, "_LONGEST_REST_S", 0.02)
        index, there = large(), dict(zip(range(1, COUNT + 1), unit(COUNT), strict=True))
        calls.clear()
        failing.set()
        self.change(index, there, work)
        while len(calls) < 2:
            index.settle(0.01)
        self.assert_exact(index, there)
        failing.clear()
        index.settle()
        assert index.method.startswith("ivf")
        found = [key for key, _ in index.search(unit(1)[0], 10**6)]
        assert sorted(found) == sorted(there)
        index.close()

    def change(self, index: DenseIndex, there: dict[int, Vector], work: str) -> None:
        """A change after which the background has to do `work`."""
        if work == "add":
            keys = list(range(COUNT + 1, COUNT + 2101))
            index.change([], keys, unit(2100, seed=10))
            there |= dict(zip(keys, unit(2100, seed=10), strict=True))
        else:
            index.change(list(range(1, 2101)), [], np.empty((0, DIMENSION), np.float32))
            for key in range(1, 2101):
                del there[key]

    def test_what_is_to_be_done_next_may_fail_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dense, "_REST_S", 0.01)
        sound, failures = DenseIndex._next, [IndexError(), MemoryError(), IndexError()]

        def fail(index: DenseIndex) -> Callable[[], None] | None:
            if failures and threading.current_thread().name == "dense-lists":
                raise failures.pop()
            return sound(index)

        monkeypatch.setattr(DenseIndex, "_next", fail)
        index = large()
        assert not failures
        index.close()

    def test_a_write_goes_well_where_no_thread_can_be_started(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        index = DenseIndex(DIMENSION, exact=FEW)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            index.change([], keys_to(COUNT), unit(COUNT))
        assert len(index.search(unit(1)[0], 10)) == 10
        index.change([], [COUNT + 1], unit(1))
        index.settle()
        assert index.method.startswith("ivf")


class TestOnDisk:
    """The saved lists."""

    def test_what_was_closed_opens_with_the_lists_it_had(
        self, tmp_path: Path, unchanged: DenseIndex, closed: bytes
    ) -> None:
        index = unchanged
        (tmp_path / "lists").write_bytes(closed)
        opened = DenseIndex(DIMENSION, keys_to(COUNT), unit(COUNT), folder=tmp_path, exact=FEW)
        assert opened.method == index.method
        for query in unit(10, seed=6):
            assert opened.search(query, 20) == index.search(query, 20)

    def test_a_file_that_lags_behind_answers_for_the_present_alone(
        self, tmp_path: Path, closed: bytes
    ) -> None:
        (tmp_path / "lists").write_bytes(closed)
        keys = np.concatenate((keys_to(COUNT)[100:], np.arange(COUNT + 5, COUNT + 305)))
        rows = np.concatenate((unit(COUNT)[100:], new := unit(300, seed=7)))
        opened = DenseIndex(DIMENSION, keys, rows, folder=tmp_path, exact=FEW)
        assert opened.method.startswith("ivf")
        assert opened.search(new[0], 1)[0][0] == COUNT + 5
        found = [key for key, _ in opened.search(unit(1)[0], 10**6)]
        assert sorted(found) == keys.tolist()

    @pytest.mark.parametrize("turned", [3, 1000, 20_000, -40, -1])
    def test_a_flipped_bit_is_found(self, tmp_path: Path, closed: bytes, turned: int) -> None:
        data = bytearray(closed)
        data[turned] ^= 4
        (tmp_path / "lists").write_bytes(data)
        self._learned_anew(tmp_path)

    @pytest.mark.parametrize("left", [0, 5, 30, 300, 60_000])
    def test_a_file_that_was_cut_is_found(self, tmp_path: Path, closed: bytes, left: int) -> None:
        (tmp_path / "lists").write_bytes(closed[:left])
        self._learned_anew(tmp_path)

    def test_a_restored_database_is_not_answered_by_a_later_file(
        self, tmp_path: Path, closed: bytes
    ) -> None:
        """The keys that it had not handed out yet are those of other vectors in the file."""
        (tmp_path / "lists").write_bytes(closed)
        rows = np.concatenate((unit(COUNT)[:4500], unit(500, seed=8)))
        index = DenseIndex(DIMENSION, keys_to(COUNT), rows, folder=tmp_path, exact=FEW)
        index.settle()
        for place in (0, 4500, 4999):
            assert index.search(rows[place], 1)[0][0] == place + 1
        index.close()
        assert load(tmp_path, DIMENSION).lists.end > 4500

    def test_a_file_that_is_ahead_of_the_database_is_not_used(
        self, tmp_path: Path, closed: bytes
    ) -> None:
        """It has other vectors under the keys that are handed out next."""
        (tmp_path / "lists").write_bytes(closed)
        rows = np.concatenate((unit(COUNT)[:4500], unit(500, seed=8)))
        index = DenseIndex(
            DIMENSION, keys_to(4500), rows[:4500], last_key=4500, folder=tmp_path, exact=FEW
        )
        index.change([], np.arange(4501, COUNT + 1), rows[4500:])
        index.settle()
        for place in (0, 4500, 4999):
            assert index.search(rows[place], 1)[0][0] == place + 1
        index.close()

    def test_a_file_is_used_where_the_newest_were_removed_since(
        self, tmp_path: Path, closed: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lists").write_bytes(closed)
        monkeypatch.setattr(Lists, "train", None)
        opened = DenseIndex(
            DIMENSION, keys_to(4500), unit(COUNT)[:4500], last_key=COUNT, folder=tmp_path, exact=FEW
        )
        assert opened.method.startswith("ivf")
        with pytest.raises(ValueError, match="ascend"):
            opened.change([], [4501], unit(1))
        opened.change([], [COUNT + 1], new := unit(1, seed=8))
        assert opened.search(new[0], 1)[0][0] == COUNT + 1

    def test_closing_waits_for_the_save_that_is_under_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After it the folder may go, and does not come back."""
        packing, go_on = threading.Event(), threading.Event()

        def slow(lists: Lists, rows: VectorRows) -> bytes:
            packing.set()
            go_on.wait(10)
            return packed(lists, rows)

        monkeypatch.setattr("services.retrieve.stores.local.dense.packed", slow)
        folder = tmp_path / "corpus" / "dense"
        folder.parent.mkdir()
        index = DenseIndex(DIMENSION, keys_to(COUNT), unit(COUNT), folder=folder, exact=FEW)
        assert packing.wait(60)
        tender = index._tender
        assert tender is not None
        threading.Timer(0.2, go_on.set).start()
        index.close()
        assert not tender.is_alive()
        folder.parent.rename(tmp_path / "gone")
        index.close()
        assert {path.name for path in tmp_path.iterdir()} == {"gone"}

    def test_saving_does_not_make_the_folder_of_a_corpus(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            save(tmp_path / "corpus" / "dense", b"lists")
        assert not any(tmp_path.iterdir())

    def test_another_dimension_is_refused(self, tmp_path: Path, closed: bytes) -> None:
        (tmp_path / "lists").write_bytes(closed)
        with pytest.raises(ListsDamagedError, match="32 numbers"):
            load(tmp_path, 16)

    def test_what_a_killed_process_left_is_cleared(self, tmp_path: Path) -> None:
        (tmp_path / ".lists.abc").write_bytes(b"half")
        self._learned_anew(tmp_path)
        assert not (tmp_path / ".lists.abc").exists()

    def test_a_folder_that_refuses_leaves_the_search_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "dense").write_text("a file where the folder should be")
        index = large(tmp_path / "dense")
        index.close()
        assert len(index.search(unit(1)[0], 10)) == 10

    def test_a_small_index_writes_nothing(self, tmp_path: Path) -> None:
        DenseIndex(DIMENSION, keys_to(9), unit(9), folder=tmp_path).close()
        assert not any(tmp_path.iterdir())

    def _learned_anew(self, folder: Path) -> None:
        index = DenseIndex(DIMENSION, keys_to(COUNT), unit(COUNT), folder=folder, exact=FEW)
        assert len(index.search(unit(1)[0], 10)) == 10
        index.settle()
        assert index.method.startswith("ivf")
        index.close()
        assert len(load(folder, DIMENSION).keys) == COUNT


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
