"""Backups that are none, or unsound, and restores that died: nothing of them is left."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import CHUNKER
from services.retrieve.corpus.transfer import manifest
from services.retrieve.corpus.transfer.manifest import content_sha256
from services.retrieve.corpus.transfer.restore import clear_away, restore
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local import meta
from services.retrieve.stores.local.layout import DATABASE
from shared.errors import ApiError
from tests.corpora import STAMP, document
from tests.transfers import SPEC, content, later, saved, shelf, shelf_documents


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with shelf(tmp_path / "data") as catalog:
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the transfers."""
    path = tmp_path / "data" / "transfers"
    path.mkdir(parents=True)
    return path


def resign(path: Path, *statements: str) -> None:
    """Change a backup and sign it anew, as somebody could who means harm."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        told = manifest.read(db)
        assert told is not None
        for statement in statements:
            db.execute(statement)
        db.execute("BEGIN")
        manifest.put(db, replace(told, sha256=content_sha256(db)))
        db.execute("COMMIT")


def set_to(path: Path, name: str, value: str) -> None:
    """Give a corpus in a backup another setting."""
    resign(path, f"UPDATE meta SET value = '{value}' WHERE name = '{name}'")


def no_database(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 an archive" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"another one")
    data[at] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    resign(path, "PRAGMA user_version = 99")


def unsigned(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM meta WHERE name = 'manifest'")
        db.execute("BEGIN")
        meta.write(db, {})
        db.execute("COMMIT")


TRIGGER = "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM documents; END"


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (no_database, "not_a_backup"),
        (empty, "not_a_backup"),
        (cut_short, "broken_backup"),
        (flipped, "broken_backup"),
        (newer, "backup_newer"),
        (unsigned, "not_a_backup"),
        (lambda path: resign(path, TRIGGER), "not_a_backup"),
        (lambda path: resign(path, "CREATE VIEW v AS SELECT 1"), "not_a_backup"),
        (lambda path: resign(path, "CREATE INDEX i ON chunks (length(text))"), "not_a_backup"),
        (lambda path: resign(path, "ALTER TABLE chunks ADD COLUMN more"), "not_a_backup"),
        (lambda path: resign(path, "UPDATE vectors SET vector = x'00'"), "broken_backup"),
        (lambda path: resign(path, "UPDATE documents SET text = x'ff'"), "broken_backup"),
        (lambda path: resign(path, "UPDATE documents SET metadata = '['"), "broken_backup"),
        (lambda path: resign(path, "DELETE FROM documents"), "broken_backup"),
        (lambda path: resign(path, "DELETE FROM meta WHERE name = 'language'"), "broken_backup"),
        (lambda path: set_to(path, "readers", "[1, 2]"), "broken_backup"),
        (lambda path: set_to(path, "chunk_tokens", "-4"), "broken_backup"),
        (lambda path: set_to(path, "recency", '{"half_life_days": -1}'), "broken_backup"),
    ],
)
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_no_sound_backup_changes_nothing(
    catalog: Catalog,
    folder: Path,
    tmp_path: Path,
    harm: Callable[[Path], None],
    code: str,
    replaced: bool,
) -> None:
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    before = content(catalog.get("shelf"))
    harm(uploaded / DATABASE)
    name, until = ("shelf", later()) if replaced else ("other", None)
    with pytest.raises(ApiError) as refused:
        restore(uploaded, name, catalog, folder, until)
    assert (refused.value.status, refused.value.code) == (422, code), refused.value.message
    assert [info.name for info in catalog.list()] == ["shelf"]
    assert content(catalog.get("shelf")) == before
    assert [one.state for one in catalog.engine("shelf").generations("shelf")] == ["live"]
    assert list(folder.iterdir()) == []
    if not replaced:  # the name is free
        catalog.create(CorpusSpec("other"), STAMP)


@pytest.mark.parametrize(
    "part",
    [
        {"url": "javascript:alert(1)"},
        {"metadata": {"n": [1, 2]}},
        {"metadata": {"n": float("nan")}},
        {"id": "two\nlines"},
        {"readers": ("",)},
    ],
)
def test_what_no_request_could_bring_no_backup_brings(
    catalog: Catalog, folder: Path, tmp_path: Path, part: dict[str, Any]
) -> None:
    catalog.get("shelf").write([replace(document("bad", ["one text"]), **part)])
    uploaded = saved(catalog.get("shelf"), folder, tmp_path / "uploaded")
    with pytest.raises(ApiError) as refused:
        restore(uploaded, "other", catalog, folder, None)
    assert (refused.value.status, refused.value.code) == (422, "broken_backup")
    assert [info.name for info in catalog.list()] == ["shelf"]


def test_a_database_as_it_lies_there_is_no_backup(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "uploaded").mkdir()
    with closing(sqlite3.connect(tmp_path / "uploaded" / DATABASE)) as db:
        found = next((tmp_path / "data" / "corpora" / "shelf").rglob(DATABASE))
        with closing(sqlite3.connect(found)) as source:
            source.backup(db)
    with pytest.raises(ApiError) as refused:
        restore(tmp_path / "uploaded", "again", catalog, folder, None)
    assert refused.value.code == "not_a_backup"


# --- processes that die -----------------------------------------------------------------------


def test_what_a_process_left_that_died_is_removed_when_the_next_one_starts(
    tmp_path: Path, folder: Path
) -> None:
    catalog = Catalog.open(tmp_path / "data" / "corpora")
    local = catalog.engine_named("local")
    for name in ("whole", "rebuilt"):
        catalog.create(replace(SPEC, name=name), STAMP)
        catalog.get(name).write(shelf_documents())
    for name in ("half", "whole", "rebuilt"):
        cut = Cut(replace(SPEC, name=name), STAMP, CHUNKER)
        local.build(cut).write(shelf_documents()[:1])
    for name in ("half", "whole"):
        (dark,) = (one for one in local.generations(name) if one.state == "dark")
        (folder / f"restoring-{name}").write_text(dark.made_at.isoformat())
    local.build(Cut(replace(SPEC, name="just-begun"), STAMP, CHUNKER))
    catalog.close()
    (folder / "restoring-just-begun").write_bytes(b"")
    (folder / "restoring-rebuilt").write_text("2026-01-31T12:00:00+00:00")  # it is no more
    (folder / "restoring-never").write_bytes(b"")
    (folder / "restore-abc").mkdir()
    (folder / "restore-abc" / DATABASE).write_bytes(b"half of it")
    shutil.copy(__file__, folder / "rest")
    catalog = Catalog.open(tmp_path / "data" / "corpora")
    local = catalog.engine_named("local")
    try:
        clear_away(folder, catalog)
        assert [info.name for info in catalog.list()] == ["rebuilt", "whole"]
        assert len(content(catalog.get("whole"))) == 3
        assert [local.dark(name) for name in ("half", "whole", "just-begun")] == [None] * 3
        assert local.dark("rebuilt") is not None  # a reindex's
        assert list(folder.iterdir()) == []
        catalog.create(CorpusSpec("half"), STAMP)  # the name is free
    finally:
        catalog.close()
