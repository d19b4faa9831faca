"""A disk that takes no more data in the middle of a swap, a backup, a restore or a rebuilding."""

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer import backup
from services.retrieve.corpus.transfer.restore import restore
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.layout import DATABASE
from services.retrieve.stores.state import rebuilding
from shared.errors import ApiError
from tests.corpora import STAMP, document
from tests.fulldisk import files_no_longer_than
from tests.invariants import require_sound

LATER = datetime(2100, 1, 1, tzinfo=UTC)
DOCUMENTS = {
    f"d{number}": document(f"d{number}", [f"word{number} part{part}" for part in range(3)])
    for number in range(20)
}


@pytest.fixture(autouse=True)
def _log_in_memory() -> Iterator[None]:
    """The limit holds for the file that pytest keeps the output in, too."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def transfers(tmp_path: Path) -> Path:
    folder = tmp_path / "transfers"
    folder.mkdir()
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """With corpus "c"."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.get("c").write(list(DOCUMENTS.values()))
    yield catalog
    catalog.close()


def refused(error: ApiError) -> bool:
    return (error.status, error.code) == (507, "storage_full")


@pytest.mark.parametrize("size", [0, 20])
def test_a_swap_that_is_refused_leaves_the_live_generation_in_its_place(
    catalog: Catalog, tmp_path: Path, size: int
) -> None:
    engine, live = catalog.engine("c"), catalog.get("c")
    new: dict[str, NewDocument] = {"new": document("new", ["other words"])}
    engine.build(Cut.of(live.info)).write([new["new"]])

    def swap() -> None:
        with live.sealed():
            engine.swap("c", LATER)

    with files_no_longer_than(size), pytest.raises(ApiError) as failure:
        swap()
    assert refused(failure.value)
    live.write([document("d0", ["written after the swap that was none"])])
    expected = {**DOCUMENTS, "d0": document("d0", ["written after the swap that was none"])}
    require_sound(live, expected)
    swap()
    catalog.reopen("c")
    require_sound(catalog.get("c"), new)
    catalog.close()
    again = Catalog.open(tmp_path / "corpora")
    require_sound(again.get("c"), new)
    again.close()


@pytest.mark.parametrize("size", [0, 1000, 40_000])
def test_a_backup_that_is_refused_leaves_nothing(
    catalog: Catalog, transfers: Path, size: int
) -> None:
    with files_no_longer_than(size), pytest.raises(ApiError) as failure:
        backup.make(catalog.get("c"), transfers)
    assert refused(failure.value)
    assert list(transfers.iterdir()) == []
    backup.make(catalog.get("c"), transfers).file.close()
    require_sound(catalog.get("c"), DOCUMENTS)


@pytest.mark.parametrize("size", [0, 2000, 40_000])
def test_a_restore_that_is_refused_leaves_nothing_and_the_next_one_succeeds(
    catalog: Catalog, transfers: Path, tmp_path: Path, size: int
) -> None:
    uploaded = tmp_path / "uploaded"
    uploaded.mkdir()
    made = backup.make(catalog.get("c"), transfers)
    (uploaded / DATABASE).write_bytes(b"".join(made.parts()))
    with files_no_longer_than(size), pytest.raises((ApiError, OSError)) as failure:
        restore(uploaded, "copy", catalog, transfers, None)
    # What the route makes of an OSError is storage_full, too.
    assert isinstance(failure.value, OSError) or refused(failure.value)
    assert [info.name for info in catalog.list()] == ["c"]
    assert {path.name for path in (tmp_path / "corpora").iterdir()} == {"c", ".lock", "format.json"}
    restore(uploaded, "copy", catalog, transfers, None)
    for name in ("c", "copy"):
        require_sound(catalog.get(name), DOCUMENTS)
    assert list(transfers.iterdir()) == []


def test_a_word_index_that_can_not_be_built_in_the_background_is_searched_from_memory(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.close()
    monkeypatch.setattr("services.retrieve.stores.local.following.AT_ONCE", 10)
    shutil.rmtree(tmp_path / "corpora" / "c" / "g1" / "lexical")
    with files_no_longer_than(36_000):  # SQLite opens with 32 KiB, and can't note anything
        again = Catalog.open(tmp_path / "corpora")
        store = again.get("c")
        give_up = time.monotonic() + 30
        while rebuilding(store):
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert len(store.bm25("word7", 5)) == 3
    store.write([document("d0", ["room again"])])
    assert len(store.bm25("room", 5)) == 1
    again.close()
    later = Catalog.open(tmp_path / "corpora")
    store = later.get("c")
    while rebuilding(store):
        time.sleep(0.01)
    require_sound(store, {**DOCUMENTS, "d0": document("d0", ["room again"])})
    later.close()
