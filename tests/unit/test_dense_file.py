"""The lists of the dense arm on disk: what is taken from there, and what is not."""

import threading
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_file import ListsDamagedError, load, packed, save
from services.retrieve.stores.local.dense_lists import Lists
from services.retrieve.stores.local.dense_rows import VectorRows
from tests.clumps import DIMENSION, FEW, keys_to, unit
from tests.clumps import large as large_of

COUNT = 2500  # vectors of a large index


def large(folder: Path | None = None) -> DenseIndex:
    return large_of(folder, COUNT)


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

    def test_what_is_closed_for_good_saves_nothing(self, tmp_path: Path) -> None:
        index = large(tmp_path)
        (tmp_path / "lists").unlink()
        index.change([1], [], np.empty((0, DIMENSION), np.float32))
        index.close(keep=False)
        assert list(tmp_path.iterdir()) == []

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
        rows = np.concatenate((unit(COUNT)[:2250], unit(250, seed=8)))
        index = DenseIndex(DIMENSION, keys_to(COUNT), rows, folder=tmp_path, exact=FEW)
        index.settle()
        for place in (0, 2250, 2499):
            assert index.search(rows[place], 1)[0][0] == place + 1
        index.close()
        assert load(tmp_path, DIMENSION).lists.end > 2250

    def test_a_file_that_is_ahead_of_the_database_is_not_used(
        self, tmp_path: Path, closed: bytes
    ) -> None:
        """It has other vectors under the keys that are handed out next."""
        (tmp_path / "lists").write_bytes(closed)
        rows = np.concatenate((unit(COUNT)[:2250], unit(250, seed=8)))
        index = DenseIndex(
            DIMENSION, keys_to(2250), rows[:2250], last_key=2250, folder=tmp_path, exact=FEW
        )
        index.change([], np.arange(2251, COUNT + 1), rows[2250:])
        index.settle()
        for place in (0, 2250, 2499):
            assert index.search(rows[place], 1)[0][0] == place + 1
        index.close()

    def test_a_file_is_used_where_the_newest_were_removed_since(
        self, tmp_path: Path, closed: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lists").write_bytes(closed)
        monkeypatch.setattr(Lists, "train", None)
        opened = DenseIndex(
            DIMENSION, keys_to(2250), unit(COUNT)[:2250], last_key=COUNT, folder=tmp_path, exact=FEW
        )
        assert opened.method.startswith("ivf")
        with pytest.raises(ValueError, match="ascend"):
            opened.change([], [2251], unit(1))
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
