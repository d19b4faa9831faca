"""The folder of corpora: its lock, its format, and corpora that come and go whole or not at all."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.local.store import LocalStore
from shared.errors import ApiError, StartupError
from tests.corpora import STAMP, document
from tests.suite import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from services.retrieve.corpus.catalog import Catalog
catalog = Catalog.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a data folder will be made."""
    return tmp_path / "data" / "corpora"


@pytest.fixture
def catalog(folder: Path) -> Iterator[Catalog]:
    """An open, empty data folder."""
    catalog = Catalog.open(folder)
    yield catalog
    catalog.close()


def test_a_corpus_is_what_was_asked_for(catalog: Catalog) -> None:
    spec = CorpusSpec("handbook", "How we work", "de", 128, 16)
    info, created = catalog.create(spec, STAMP)
    assert created
    assert (info.name, info.description, info.language) == ("handbook", "How we work", "de")
    assert (info.chunk_tokens, info.chunk_overlap, info.stamp) == (128, 16, STAMP)
    assert (info.documents, info.chunks, info.writes) == (0, 0, 0)
    assert catalog.list() == [info]


def test_creating_again_with_the_same_settings_changes_nothing(catalog: Catalog) -> None:
    catalog.create(CorpusSpec("a", "Described"), STAMP)
    catalog.get("a").write([document("d", ["kept"])])
    for spec in (CorpusSpec("a", "Described"), CorpusSpec("a")):
        info, created = catalog.create(spec, STAMP)
        assert not created
        assert (info.documents, info.description) == (1, "Described")


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (CorpusSpec("a", "Other"), "description"),
        (CorpusSpec("a", language="de"), "language"),
        (CorpusSpec("a", chunk_tokens=128), "chunk_tokens"),
        (CorpusSpec("a", chunk_overlap=0), "chunk_overlap"),
        (CorpusSpec("a", curate=False), "curate"),
    ],
)
def test_creating_again_with_other_settings_is_refused(
    catalog: Catalog, spec: CorpusSpec, param: str
) -> None:
    catalog.create(CorpusSpec("a", "Described"), STAMP)
    with pytest.raises(ApiError) as failure:
        catalog.create(spec, STAMP)
    assert (failure.value.status, failure.value.param) == (409, param)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "_a", ".new-x", "..", "a/b", "a b", "ä", "a" * 64, "a\n", "format.json"]
)
def test_a_name_that_could_leave_the_folder_or_hide_in_it_is_refused(
    catalog: Catalog, folder: Path, name: str
) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ApiError) as failure:
        catalog.create(CorpusSpec(name), STAMP)
    assert (failure.value.status, failure.value.param) == (422, "name")
    with pytest.raises(ApiError) as failure:
        catalog.delete(name)
    assert failure.value.status == 404
    assert sorted(folder.parent.rglob("*")) == before


def test_an_unknown_language_is_refused_and_leaves_nothing(catalog: Catalog, folder: Path) -> None:
    with pytest.raises(ApiError) as failure:
        catalog.create(CorpusSpec("a", language="xx"), STAMP)
    assert (failure.value.status, failure.value.param) == (422, "language")
    assert "en" in failure.value.message
    assert {path.name for path in folder.iterdir()} == {".lock", "format.json"}


def test_a_deleted_corpus_is_gone_for_good(catalog: Catalog, folder: Path) -> None:
    catalog.create(CorpusSpec("a"), STAMP)
    store = catalog.get("a")
    store.write([document("d", ["words"])])
    catalog.delete("a")
    assert catalog.list() == []
    assert {path.name for path in folder.iterdir()} == {".lock", "format.json"}
    for use in (lambda: catalog.get("a"), lambda: catalog.delete("a"), lambda: store.fetch([1])):
        with pytest.raises(ApiError) as failure:
            use()
        assert (failure.value.status, failure.value.code) == (404, "corpus_not_found")
    catalog.create(CorpusSpec("a"), STAMP)
    assert catalog.get("a").info.documents == 0


def test_a_corpus_is_deleted_after_the_write_that_is_under_way(catalog: Catalog) -> None:
    """And what is left of it never touches the corpus that takes its place."""
    many = [document(f"d{n}", [f"old words {n} {part}" for part in range(10)]) for n in range(100)]
    for _ in range(3):
        catalog.create(CorpusSpec("a"), STAMP)
        store = catalog.get("a")
        with ThreadPoolExecutor() as pool:
            writing = pool.submit(store.write, many)
            while store.info.writes == 0 and not store_is_writing(store):
                pass
            catalog.delete("a")
            catalog.create(CorpusSpec("a"), STAMP)
            catalog.get("a").write([document("fresh", ["fresh words"])])
            assert writing.result().documents == 100
        new = catalog.get("a")
        assert new.info.documents == 1
        assert len(new.bm25("words", 10)) == 1
        with pytest.raises(ApiError) as failure:
            store.write(many)
        assert failure.value.status == 404
        catalog.delete("a")


def store_is_writing(store: CorpusStore) -> bool:
    assert isinstance(store, LocalStore)
    return store._writing.locked()


def test_a_corpus_whose_folder_can_not_be_moved_stays(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.create(CorpusSpec("a"), STAMP)
    catalog.get("a").write([document("d", ["words"])])

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # No real disk can be made to refuse this for root, too.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(ApiError) as failure:
            catalog.delete("a")
    assert failure.value.status == 507
    assert len(catalog.get("a").bm25("words", 10)) == 1
    catalog.get("a").write([document("e", ["words"])])
    catalog.delete("a")
    assert catalog.list() == []


def test_corpora_are_listed_while_others_come_and_go(catalog: Catalog) -> None:
    for n in range(8):
        catalog.create(CorpusSpec(f"kept-{n}"), STAMP)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor() as pool:
            done = pool.submit(come_and_go, catalog)
            while not done.done():
                assert len(catalog.list()) >= 8
            done.result()
    finally:
        sys.setswitchinterval(interval)


def come_and_go(catalog: Catalog) -> None:
    for _ in range(10):
        catalog.create(CorpusSpec("a"), STAMP)
        catalog.delete("a")


def test_a_copy_under_another_name_is_a_corpus_of_that_name(catalog: Catalog, folder: Path) -> None:
    catalog.create(CorpusSpec("secret"), STAMP)
    catalog.close()
    shutil.copytree(folder / "secret", folder / "copy")
    again = Catalog.open(folder)
    assert [info.name for info in again.list()] == ["copy", "secret"]
    assert again.get("copy").info.name == "copy"
    again.close()


def test_corpora_are_there_again_after_a_restart(catalog: Catalog, folder: Path) -> None:
    for name in ("b", "a"):
        catalog.create(CorpusSpec(name), ModelStamp("m", name, 16))
        catalog.get(name).write([document("d", [f"in {name}"])])
    before = catalog.list()
    catalog.close()
    again = Catalog.open(folder)
    assert again.list() == before
    assert [info.revision for info in before] == ["a", "b"]
    again.close()


def test_what_a_killed_process_left_half_made_is_cleared_away(
    catalog: Catalog, folder: Path
) -> None:
    catalog.create(CorpusSpec("kept"), STAMP)
    catalog.close()
    for name in (".new-0123", ".trash-4567"):
        (folder / name).mkdir()
        (folder / name / "corpus.db").write_bytes(b"half")
    again = Catalog.open(folder)
    assert [info.name for info in again.list()] == ["kept"]
    assert {path.name for path in folder.iterdir()} == {"kept", ".lock", "format.json"}
    again.close()


def test_a_second_process_is_told_who_has_the_folder(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StartupError, match=f"in use by process {process.pid}"):
            Catalog.open(folder)
        process.kill()
    # A lock dies with its process: nothing to clean up by hand.
    catalog = Catalog.open(folder)
    with pytest.raises(StartupError, match=f"in use by process {os.getpid()}"):
        Catalog.open(folder)
    catalog.close()


def test_a_folder_of_a_newer_version_is_left_alone(catalog: Catalog, folder: Path) -> None:
    catalog.create(CorpusSpec("a"), STAMP)
    catalog.close()
    (folder / "format.json").write_text(json.dumps({"format": 3}))
    with pytest.raises(StartupError, match="upgrade refdesk"):
        Catalog.open(folder)
    (folder / "format.json").write_text(json.dumps({"format": 2}))
    again = Catalog.open(folder)  # and the refusal let go of the lock
    assert [info.name for info in again.list()] == ["a"]
    again.close()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "x"}', "\x00"])
def test_a_damaged_format_file_is_named(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "format.json").write_text(content)
    with pytest.raises(StartupError, match=r"format\.json is damaged"):
        Catalog.open(folder)


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(StartupError, match="REFDESK_DATA_DIR"):
        Catalog.open(tmp_path / "data" / "corpora")


def test_an_unknown_corpus_says_how_to_make_one(catalog: Catalog) -> None:
    with pytest.raises(ApiError, match="PUT /corpora/nobody") as failure:
        catalog.get("nobody")
    assert failure.value.status == 404
