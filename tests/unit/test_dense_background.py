"""The dense arm while its work in the background fails."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local import dense
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_lists import Lists
from tests.clumps import COUNT, DIMENSION, FEW, exact, keys_to, large, unit


class TestFailingBackground:
    """What fails in the background neither spins, nor ends for good, nor is seen by a search."""

    @pytest.fixture
    def broken(
        self, error: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> tuple[list[str], threading.Event]:
        """The calls that failed, and whether they go on to fail."""
        calls, failing, sound = list[str](), threading.Event(), dict[str, Callable[..., None]]()

        def fail(name: str) -> Callable[..., None]:
            def called(lists: Lists, *values: NDArray[np.int64]) -> None:
                sound[name](lists, *(value[: len(value) // 2] for value in values))
                calls.append(name)
                if failing.is_set():
                    raise error
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

    @pytest.mark.parametrize(("error", "work"), [(MemoryError, "add"), (IndexError, "remove")])
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
        while not calls:
            index.settle(0.01)
        index.settle(0.2)
        assert calls == [work]
        self.assert_exact(index, there)
        index.change([], [9999], unit(1, seed=12))
        there[9999] = unit(1, seed=12)[0]
        self.assert_exact(index, there)
        index.close()  # ends the rest
        assert index._tender is None

    @pytest.mark.parametrize(("error", "work"), [(IndexError, "add"), (MemoryError, "remove")])
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
