"""The log of a corpus's database is damaged after its process was killed.

SQLite takes a damaged log for a shorter one. What was acknowledged and is gone is told.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.doctor.generation import examine
from services.retrieve.doctor.report import Level
from services.retrieve.stores.corpus import CorpusSpec, Preferences
from services.retrieve.stores.local.acknowledged import NOTE
from tests.corpora import STAMP, document
from tests.invariants import require_sound

SEED = 3
DOCUMENTS = {f"d{number}": document(f"d{number}", [f"word{number}"]) for number in range(6)}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with corpus "c", as a process left it that was killed: nothing is closed."""
    folder = tmp_path_factory.mktemp("killed") / "corpora"
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.close()
    catalog = Catalog.open(folder)
    for one in DOCUMENTS.values():
        catalog.get("c").write([one])
    catalog.get("c").configure(Preferences(readers=("ann",)))
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm"))
    catalog.close()
    return copy


@pytest.fixture
def generation(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "corpora")
    return tmp_path / "corpora" / "c" / "g1"


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def lost(data: bytes, chance: random.Random) -> bytes:
    return b""


def without_the_last_page(data: bytes, chance: random.Random) -> bytes:
    return data[: -4096 - 24]


DAMAGES = [flip, cut, lost, without_the_last_page]


@pytest.mark.parametrize("damage", DAMAGES)
def test_acknowledged_changes_never_go_without_a_word(
    generation: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    log, chance = generation / "corpus.db-wal", random.Random(SEED)
    sound = log.read_bytes()
    database = (generation / "corpus.db").read_bytes()
    for _ in range(8):
        (generation / "corpus.db").write_bytes(database)
        log.write_bytes(damage(sound, chance))
        catalog = Catalog.open(generation.parent.parent)
        told = catalog.damaged.get("c")
        if told is None:  # a byte of the log that means nothing, such as of a page written anew
            require_sound(catalog.get("c"), DOCUMENTS)
            assert catalog.get("c").info.readers == ("ann",)
        else:
            assert str(generation / "corpus.db") in told
            assert str(generation / NOTE) in told
        catalog.close()
        if damage in (lost, without_the_last_page):
            assert told


@pytest.mark.parametrize("examining", [True, False])
def test_what_is_behind_the_damage_is_kept(generation: Path, examining: bool) -> None:
    log = generation / "corpus.db-wal"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    log.write_bytes(damaged)
    if examining:
        assert [one.level for one in examine(generation)] == [Level.DAMAGED]
    for _ in range(2):
        catalog = Catalog.open(generation.parent.parent)
        kept = generation / "corpus.db-wal.damaged"
        assert f"its log as it was is kept in {kept}" in catalog.damaged["c"]
        catalog.close()
        assert kept.read_bytes() == damaged


def test_a_sound_log_is_taken_as_it_is(generation: Path) -> None:
    catalog = Catalog.open(generation.parent.parent)
    require_sound(catalog.get("c"), DOCUMENTS)
    catalog.close()


@pytest.mark.parametrize("content", [b"", b"0", b"rubbish rubbish\n", b"9" * 20 + b" 00000000\n"])
def test_a_note_that_can_not_be_read_says_nothing(generation: Path, content: bytes) -> None:
    (generation / NOTE).write_bytes(content)
    catalog = Catalog.open(generation.parent.parent)
    require_sound(catalog.get("c"), DOCUMENTS)
    catalog.get("c").write([document("d0", ["again"])])
    require_sound(catalog.get("c"), {**DOCUMENTS, "d0": document("d0", ["again"])})
    catalog.close()
    assert len((generation / NOTE).read_bytes()) == 30


def test_who_wants_to_go_on_with_what_there_is_can(generation: Path) -> None:
    (generation / "corpus.db-wal").write_bytes(b"")
    (generation / NOTE).unlink()
    catalog = Catalog.open(generation.parent.parent)
    require_sound(catalog.get("c"), {})
    catalog.close()
