"""Restores that fail: on a full disk, beside others, and of what older versions made."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer import backup
from services.retrieve.corpus.transfer import restore as restoring
from services.retrieve.corpus.transfer.manifest import content_sha256
from services.retrieve.corpus.transfer.restore import clear_away, restore
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.local import meta
from services.retrieve.stores.local.layout import DATABASE
from services.retrieve.stores.local.schema import make_tables
from shared.errors import ApiError
from tests.corpora import STAMP
from tests.fulldisk import files_no_longer_than
from tests.transfers import shelf

LATER = datetime.now(UTC) + timedelta(days=1)
# Of a corpus of one row, as every version that makes backups has taken it.
SUM = "f3a7ae99d421f264e82c4e7a3f0d841e2fe069c68e7981773c4d514175c0b4be"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with structlog.testing.capture_logs(), shelf(tmp_path / "data") as catalog:
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the transfers."""
    path = tmp_path / "data" / "transfers"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def uploaded(catalog: Catalog, folder: Path, tmp_path: Path) -> Path:
    """A backup in a folder of its own."""
    path = tmp_path / "uploaded"
    path.mkdir()
    parts = backup.make(catalog.get("shelf"), folder).parts()
    (path / DATABASE).write_bytes(b"".join(parts))
    return path


def states(catalog: Catalog, name: str) -> list[str]:
    return [one.state for one in catalog.engine_named("local").generations(name)]


def test_the_sum_over_a_corpus_is_the_same_in_every_version() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        make_tables(db)
        db.execute("INSERT INTO meta VALUES ('name', 'c')")
        assert content_sha256(db) == SUM
        meta.write(db, {"manifest": "{}"})
        assert content_sha256(db) == SUM


@pytest.mark.parametrize("size", [0, 8, 60, 500, 5000, 20_000, 40_000])
@pytest.mark.parametrize("name", ["other", "shelf"])
def test_a_restore_that_a_full_disk_refuses_leaves_nothing_and_can_be_repeated(
    catalog: Catalog, folder: Path, uploaded: Path, name: str, size: int
) -> None:
    until = LATER if name == "shelf" else None
    with files_no_longer_than(size), pytest.raises((ApiError, OSError)):
        restore(uploaded, name, catalog, folder, until)
    assert "dark" not in states(catalog, name)
    restore(uploaded, name, catalog, folder, until)
    assert catalog.get(name).info.documents == 3


@pytest.fixture
def left_behind(
    catalog: Catalog, folder: Path, uploaded: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A restore has failed, and what it had built could not be removed."""

    def refuse(*_: object) -> None:
        raise ApiError(507, "storage_full", "no room")

    with monkeypatch.context() as patch:

        def fill(*_: object) -> None:
            patch.setattr(catalog.engine_named("local"), "discard", refuse)
            refuse()

        patch.setattr(restoring, "_fill", fill)
        with pytest.raises(ApiError, match="no room"):
            restore(uploaded, name, catalog, folder, LATER if name == "shelf" else None)
    assert "dark" in states(catalog, name)


@pytest.mark.parametrize("name", ["other", "shelf"])
@pytest.mark.usefixtures("left_behind")
def test_what_a_failed_restore_could_not_remove_is_in_no_later_ones_way(
    catalog: Catalog, folder: Path, uploaded: Path, name: str
) -> None:
    restore(uploaded, name, catalog, folder, LATER if name == "shelf" else None)
    assert catalog.get(name).info.documents == 3
    assert "dark" not in states(catalog, name)


@pytest.mark.parametrize("name", ["other"])
@pytest.mark.usefixtures("left_behind")
def test_a_corpus_can_be_made_under_the_name_of_a_failed_restore(
    catalog: Catalog, name: str
) -> None:
    assert catalog.create(CorpusSpec(name), STAMP)[0].documents == 0
    assert states(catalog, name) == ["live"]


@pytest.mark.parametrize("name", ["other", "shelf"])
@pytest.mark.usefixtures("left_behind")
def test_what_a_failed_restore_could_not_remove_goes_at_the_next_start(
    catalog: Catalog, folder: Path, tmp_path: Path, name: str
) -> None:
    catalog.close()
    again = Catalog.open(tmp_path / "data" / "corpora")
    clear_away(folder, again)
    assert states(again, name) == (["live"] if name == "shelf" else [])
    assert list(folder.iterdir()) == []
    again.close()


def test_a_second_restore_of_the_same_name_leaves_the_note_of_the_first_one(
    catalog: Catalog, folder: Path, uploaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = restoring._fill

    def beside(*parts: Any) -> None:
        before = {path: path.read_bytes() for path in folder.glob("restoring-*")}
        with pytest.raises(ApiError, match="is being restored"):
            restore(uploaded, "other", catalog, folder, None)
        assert {path: path.read_bytes() for path in before} == before
        fill(*parts)

    monkeypatch.setattr(restoring, "_fill", beside)
    restore(uploaded, "other", catalog, folder, None)
    assert catalog.get("other").info.documents == 3
