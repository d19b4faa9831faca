"""What a process finds of corpora when it starts: an older layout, what a killed one left, and a
`live.json` that is damaged or gone."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.local.engine import LocalEngine
from shared.errors import ApiError
from tests.corpora import document
from tests.generations import CUT, ids, one_corpus, there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


@pytest.fixture
def engine(folder: Path) -> Iterator[LocalEngine]:
    with one_corpus(folder) as engine:
        yield engine


def old_layout(folder: Path) -> None:
    """Bring a closed data folder to what it was in format 1."""
    for corpus in (path for path in folder.iterdir() if path.is_dir()):
        for path in (corpus / "g1").iterdir():
            path.rename(corpus / path.name)
        (corpus / "g1").rmdir()
        for name in ("live.json", "acknowledged"):
            (corpus / name).unlink(missing_ok=True)
    (folder / "format.json").write_text('{"format": 1}')


def nothing(corpus: Path) -> None:
    """As format 1 left it."""


def an_empty_generation(corpus: Path) -> None:
    (corpus / "g1").mkdir()


def the_truth_moved(corpus: Path) -> None:
    (corpus / "g1").mkdir()
    (corpus / "corpus.db").rename(corpus / "g1" / "corpus.db")


def the_word_index_too(corpus: Path) -> None:
    the_truth_moved(corpus)
    (corpus / "lexical").rename(corpus / "g1" / "lexical")


def all_but_the_roles(corpus: Path) -> None:
    the_word_index_too(corpus)
    (corpus / ".live.json.x0").write_bytes(b'{"gen')


@pytest.mark.parametrize(
    "died_after",
    [nothing, an_empty_generation, the_truth_moved, the_word_index_too, all_but_the_roles],
)
@pytest.mark.parametrize("form", [1, 2])
def test_an_older_folder_is_brought_to_this_layout_wherever_a_process_died(
    engine: LocalEngine, folder: Path, died_after: Callable[[Path], None], form: int
) -> None:
    engine.close()
    old_layout(folder)
    (folder / "format.json").write_text(json.dumps({"format": form}))
    died_after(folder / "c")
    again = LocalEngine.at(folder)
    store = again.open("c")
    assert (ids(store), len(store.bm25("words", 5))) == (["old"], 1)
    assert list(store.verify()) == []
    assert there(folder) == {"live.json", "g1"}
    assert json.loads((folder / "format.json").read_bytes()) == {"format": 2}
    store.write([document("new", ["words"])])
    store.close()
    again.close()


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_in_the_log_of_an_older_database_comes_along(
    engine: LocalEngine, folder: Path, tmp_path: Path, moved: bool
) -> None:
    store = engine.open("c")
    store.write([document("logged", ["words"])])
    for file in (folder / "c" / "g1").glob("corpus.db*"):  # as of a process that was killed
        shutil.copy(file, tmp_path / file.name)
    store.close()
    engine.close()
    old_layout(folder)
    for name in ("corpus.db", "corpus.db-wal", "corpus.db-shm"):
        shutil.copy(tmp_path / name, folder / "c" / name)
    assert (folder / "c" / "corpus.db-wal").stat().st_size > 0
    if moved:
        the_truth_moved(folder / "c")
    again = LocalEngine.at(folder)
    store = again.open("c")
    assert ids(store) == ["logged", "old"]
    assert there(folder) == {"live.json", "g1"}
    store.close()
    again.close()


def test_what_a_killed_process_left_of_generations_is_cleared_away(
    engine: LocalEngine, folder: Path
) -> None:
    engine.build(CUT)
    engine.close()
    for name in (".new-1", ".trash-2", "g3", "g17"):
        shutil.copytree(folder / "c" / "g2", folder / "c" / name)
    (folder / "c" / ".live.json.abc").write_bytes(b"{")
    LocalEngine.at(folder).close()
    assert {path.name for path in (folder / "c").iterdir()} == {"live.json", "g1", "g2"}


DAMAGE = [b"", b"{", b"[]", b"null", b'{"generation": "x"}', b'{"generation": 9, "previous": null}']


@pytest.mark.parametrize("content", DAMAGE)
def test_of_a_sole_generation_nobody_has_to_say_that_it_is_live(
    engine: LocalEngine, folder: Path, content: bytes
) -> None:
    engine.close()
    (folder / "c" / "live.json").write_bytes(content)
    catalog = Catalog.open(folder)
    assert ids(catalog.get("c")) == ["old"]
    catalog.close()


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_live_json_of_several_generations_is_told_with_the_way_out(
    engine: LocalEngine, folder: Path, content: bytes
) -> None:
    engine.build(CUT)
    engine.close()
    sound = (folder / "c" / "live.json").read_bytes()
    (folder / "c" / "live.json").write_bytes(content)
    catalog = Catalog.open(folder)
    with pytest.raises(ApiError, match=r"live\.json can't be read") as failure:
        catalog.get("c")
    assert failure.value.code == "corpus_damaged"
    assert "g1, g2" in failure.value.message
    catalog.close()
    (folder / "c" / "live.json").write_bytes(sound)
    catalog = Catalog.open(folder)
    assert ids(catalog.get("c")) == ["old"]
    catalog.close()


def test_a_corpus_without_any_generation_is_damaged_and_can_be_deleted(
    engine: LocalEngine, folder: Path
) -> None:
    engine.close()
    shutil.rmtree(folder / "c" / "g1")
    catalog = Catalog.open(folder)
    assert "restore it from a backup" in catalog.damaged["c"]
    catalog.delete("c")
    assert catalog.damaged == {}
    catalog.close()
