"""The file that says which generation is live, and the names of generations' folders."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.local.layout import LIVE, Roles, appoint, roles
from shared.errors import ApiError
from tests.corpora import document
from tests.generations import CUT, one_corpus
from tests.invariants import require_sound

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three generations: 2 and 3 differ by a bit."""
    for place in range(1, 4):
        (tmp_path / f"g{place}").mkdir()
    return tmp_path


def test_whichever_bit_of_it_flips_no_other_generation_is_taken_for_the_live_one(
    corpus: Path,
) -> None:
    wanted = Roles(2, previous=1, dark=3, until=LATER.isoformat())
    appoint(corpus, wanted)
    sound = (corpus / LIVE).read_bytes()
    assert roles(corpus) == wanted
    for bit in range(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        (corpus / LIVE).write_bytes(data)
        with pytest.raises(ApiError, match="can't be read"):
            roles(corpus)
    for end in range(0, len(sound) - 1, 5):  # the last is the end of the line
        (corpus / LIVE).write_bytes(sound[:end])
        with pytest.raises(ApiError, match="can't be read"):
            roles(corpus)


@pytest.mark.parametrize("wanted", [Roles(None, dark=1), Roles(None, previous=1)])
def test_whichever_bit_of_it_flips_a_sole_generation_that_is_not_live_does_not_become_it(
    tmp_path: Path, wanted: Roles
) -> None:
    (tmp_path / "g1").mkdir()
    appoint(tmp_path, wanted)
    sound = (tmp_path / LIVE).read_bytes()
    for bit in range(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / LIVE).write_bytes(data)
        with pytest.raises(ApiError, match="can't be read"):
            roles(tmp_path)


def test_one_that_the_disk_does_not_give_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "g1").mkdir()
    assert roles(tmp_path) == Roles(1)
    (tmp_path / LIVE).mkdir()
    with pytest.raises(ApiError, match="can't be read"):
        roles(tmp_path)


@pytest.mark.parametrize("made", [LocalEngine.build, LocalEngine.step_down])
def test_a_corpus_that_nobody_serves_is_in_nobodys_way(
    engine: LocalEngine, made: Callable[..., object]
) -> None:
    live = engine.open("c")
    with live.sealed():
        engine.step_down("c", LATER)
    live.close()
    if made is LocalEngine.build:
        assert engine.forget("c", LATER)
        engine.build(CUT).write([document("half", ["half of it"])])
    expected = {"new": document("new", ["new words"])}
    store = engine.create(CUT)
    store.write(list(expected.values()))
    require_sound(store, expected)
    assert [one.state for one in engine.generations("c")] == ["live"]


def test_one_that_is_written_by_hand_or_by_an_older_version_has_no_checksum(corpus: Path) -> None:
    for told in (
        {"generation": 2, "previous": 1, "dark": 3, "until": None},
        {"generation": 2, "previous": 1, "until": None},
    ):
        (corpus / LIVE).write_text(json.dumps(told))
        assert roles(corpus) == Roles(2, previous=1, dark=told.get("dark"))


@pytest.mark.parametrize(
    "told",
    [
        {"generation": 2, "previous": 2, "until": None},
        {"generation": 2, "previous": None, "dark": 2, "until": None},
        {"generation": 2, "previous": 1, "daRk": 3, "until": None},
        {"generation": 2, "previous": 1, "until": 7},
    ],
)
def test_one_that_can_not_be_meant_is_refused(corpus: Path, told: dict[str, object]) -> None:
    (corpus / LIVE).write_text(json.dumps(told))
    with pytest.raises(ApiError) as failure:
        roles(corpus)
    assert failure.value.code == "corpus_damaged"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with one_corpus(tmp_path / "corpora") as engine:
        yield engine


def test_what_was_to_go_with_a_corpus_does_not_take_one_of_the_same_name_along(
    engine: LocalEngine,
) -> None:
    others = set(threading.enumerate())
    searching = engine.open("c")
    engine.build(CUT)
    with searching.sealed():
        engine.swap("c", LATER)
    assert engine.forget("c", LATER)  # g1 goes once nobody searches it any more
    engine.delete("c")
    new = engine.create(CUT)
    expected = {"new": document("new", ["new words"])}
    new.write(list(expected.values()))
    del searching
    new.close()
    del new
    for thread in set(threading.enumerate()) - others:
        thread.join(5)
    require_sound(engine.open("c"), expected)


def test_a_generation_that_goes_is_not_taken_for_the_next_of_its_name(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, remove, removers = threading.Event(), shutil.rmtree, []

    def slowly(path: Path, ignore_errors: bool = False) -> None:
        if threading.current_thread() is not threading.main_thread():
            removers.append(threading.current_thread())
            go_on.wait(30)
        remove(path, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    engine.build(CUT)
    live = engine.open("c")
    with live.sealed():
        engine.swap("c", LATER)
    live.close()
    assert engine.forget("c", LATER)
    engine.delete("c")
    engine.create(CUT).close()
    expected = {"new": document("new", ["new words"])}
    dark = engine.build(CUT)
    dark.write(list(expected.values()))
    go_on.set()
    for remover in removers:
        remover.join()
    assert removers
    require_sound(dark, expected)
    assert dark.folder.is_dir()
