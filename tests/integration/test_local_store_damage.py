"""What happens to a local corpus whose files were damaged, lost or mixed up."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.lexical import LexicalDamagedError, LexicalIndex
from shared.errors import ApiError
from tests.corpora import STAMP, document, vector_of

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord"]
WORDS += ["grove", "heath", "inlet", "jetty", "knoll", "ledge"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed data folder with corpus "c": twelve documents in six segments, one deleted."""
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    store = catalog.get("c")
    for at in range(0, 12, 2):
        store.write([document(word, [f"{word} stands here"]) for word in WORDS[at : at + 2]])
    store.delete(["ledge"])
    catalog.close()
    return tmp_path / "corpora"


def assert_whole(store: CorpusStore) -> None:
    """Each document is found by its word, the deleted one is not."""
    for word in WORDS[:-1]:
        hits = store.bm25(word, 3)
        assert [record.document_id for record in store.fetch([k for k, _ in hits]).values()] == [
            word
        ]
        key, cosine = store.dense(vector_of(f"{word} stands here"), 1)[0]
        assert store.fetch([key])[key].document_id == word
        assert cosine == pytest.approx(1.0, abs=1e-5)
    assert store.bm25("ledge", 1) == []


def is_sound(folder: Path) -> bool:
    """Whether the word index on disk would be taken as it is."""
    database = Database.open(folder / "c" / "g1")
    try:
        LexicalIndex.open(folder / "c" / "g1" / "lexical", "en", database.lexical_stamp()).close()
    except LexicalDamagedError:
        return False
    finally:
        database.close()
    return True


def index_files(folder: Path) -> list[Path]:
    """The files of the word index that are part of its state."""
    return sorted(
        file
        for file in (folder / "c" / "g1" / "lexical").iterdir()
        if not file.name.endswith(".lock") and file.stat().st_size > 0
    )


def test_a_sound_index_is_taken_as_it_is(folder: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in index_files(folder)}
    assert is_sound(folder)
    catalog = Catalog.open(folder)
    assert_whole(catalog.get("c"))
    catalog.close()
    after = {file.name: file.stat().st_mtime_ns for file in index_files(folder)}
    assert after == before


def flip_a_bit(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def flip_the_first(file: Path, chance: random.Random) -> None:
    """In the body of a file of Tantivy's, where it looks at no checksum itself."""
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def truncate(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def fill_with_garbage(file: Path, chance: random.Random) -> None:
    file.write_bytes(chance.randbytes(file.stat().st_size))


def remove(file: Path, chance: random.Random) -> None:
    file.unlink()


@pytest.mark.parametrize(
    "damage", [flip_a_bit, flip_the_first, truncate, fill_with_garbage, remove]
)
def test_a_damaged_word_index_is_built_anew(
    folder: Path, tmp_path: Path, damage: Callable[[Path, random.Random], None]
) -> None:
    chance = random.Random(11)
    sound = tmp_path / "sound"
    shutil.copytree(folder, sound)
    of_each_kind = {file.name.removeprefix(file.stem): file.name for file in index_files(folder)}
    for name in (*of_each_kind.values(), "build", "meta.json"):
        shutil.rmtree(folder)
        shutil.copytree(sound, folder)
        damage(folder / "c" / "g1" / "lexical" / name, chance)
        # A bit of the JSON files that means nothing (white space) may flip; all else is noticed.
        if not name.endswith(".json"):
            assert not is_sound(folder), name
        catalog = Catalog.open(folder)
        assert_whole(catalog.get("c"))
        catalog.close()
        assert is_sound(folder)


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        (b'"fast": true', b'"fasu": true'),
        (b'"name": "body"', b'"name": "bgdy"'),
        (b'"segment_id": "', b'"segment_id": 7, "was": "'),
    ],
)
def test_an_index_whose_description_was_damaged_is_built_anew(
    folder: Path, told: bytes, instead: bytes
) -> None:
    meta = folder / "c" / "g1" / "lexical" / "meta.json"
    meta.write_bytes(meta.read_bytes().replace(told, instead))
    assert not is_sound(folder)
    catalog = Catalog.open(folder)
    assert_whole(catalog.get("c"))
    catalog.close()


@pytest.mark.parametrize("state", ["absent", "empty", "a file"])
def test_a_missing_word_index_is_built_anew(folder: Path, state: str) -> None:
    lexical = folder / "c" / "g1" / "lexical"
    shutil.rmtree(lexical)
    if state == "empty":
        lexical.mkdir()
    elif state == "a file":
        lexical.write_bytes(b"rubbish")
    catalog = Catalog.open(folder)
    assert_whole(catalog.get("c"))
    catalog.close()
    assert is_sound(folder)


def test_a_word_index_of_another_corpus_is_not_used(folder: Path) -> None:
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("other"), STAMP)
    other = catalog.get("other")
    for at in range(0, 12, 2):  # the same operations on other documents
        other.write([document(word, ["nothing else"]) for word in WORDS[at : at + 2]])
    other.delete(["ledge"])
    catalog.close()
    shutil.rmtree(folder / "c" / "g1" / "lexical")
    shutil.copytree(folder / "other" / "g1" / "lexical", folder / "c" / "g1" / "lexical")
    catalog = Catalog.open(folder)
    assert_whole(catalog.get("c"))
    catalog.close()


def test_a_database_put_back_from_a_backup_gets_a_word_index_of_its_own(folder: Path) -> None:
    backup = (folder / "c" / "g1" / "corpus.db").read_bytes()
    catalog = Catalog.open(folder)
    catalog.get("c").write([document("amber", ["later words"]), document("new", ["unheard of"])])
    catalog.close()
    for file in (folder / "c" / "g1").glob("corpus.db*"):
        file.unlink()
    (folder / "c" / "g1" / "corpus.db").write_bytes(backup)
    catalog = Catalog.open(folder)  # it lacks what was acknowledged after the backup
    assert str(folder / "c" / "g1" / "acknowledged") in catalog.damaged["c"]
    catalog.close()
    (folder / "c" / "g1" / "acknowledged").unlink()
    catalog = Catalog.open(folder)
    store = catalog.get("c")
    assert_whole(store)
    assert store.bm25("unheard", 1) == []
    catalog.close()


@pytest.mark.parametrize("size", [0, 100, 4096, 0.5])
def test_a_truncated_database_is_named_and_the_other_corpora_go_on(
    folder: Path, size: float
) -> None:
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("healthy"), STAMP)
    catalog.get("healthy").write([document("d", ["fine"])])
    catalog.close()
    file = folder / "c" / "g1" / "corpus.db"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * size) if size < 1 else int(size)])
    catalog = Catalog.open(folder)
    assert [info.name for info in catalog.list()] == ["healthy"]
    assert catalog.get("healthy").bm25("fine", 1)
    assert str(file) in catalog.damaged["c"]
    with pytest.raises(ApiError) as failure:
        catalog.get("c")
    assert (failure.value.status, failure.value.code) == (500, "corpus_damaged")
    assert str(file) in failure.value.message
    with pytest.raises(ApiError) as failure:
        catalog.create(CorpusSpec("c"), STAMP)
    assert failure.value.code == "corpus_damaged"
    catalog.delete("c")
    assert catalog.create(CorpusSpec("c"), STAMP)[1]
    catalog.close()


@pytest.mark.parametrize("content", [None, b"", b"this is no database at all" * 500])
def test_a_database_that_is_none_is_named(folder: Path, content: bytes | None) -> None:
    for file in (folder / "c" / "g1").glob("corpus.db*"):
        file.unlink()
    file = folder / "c" / "g1" / "corpus.db"
    if content is not None:
        file.write_bytes(content)
    catalog = Catalog.open(folder)
    assert str(file) in catalog.damaged["c"]
    assert file.exists() == (content is not None)  # opening makes no empty one
    catalog.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM vectors WHERE key = 3",
        "UPDATE vectors SET vector = x'00' WHERE key = 3",
        "UPDATE vectors SET vector = 'a text, no bytes' WHERE key = 3",
        "DELETE FROM meta WHERE name = 'dimension'",
        "DROP TABLE vectors",
    ],
)
def test_a_database_that_contradicts_itself_is_named(folder: Path, statement: str) -> None:
    file = folder / "c" / "g1" / "corpus.db"
    with sqlite3.connect(file) as db:
        db.execute(statement)
    db.close()
    catalog = Catalog.open(folder)
    assert str(file) in catalog.damaged["c"]
    catalog.close()


def test_a_database_of_a_newer_version_is_left_alone(folder: Path) -> None:
    file = folder / "c" / "g1" / "corpus.db"
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = file.read_bytes()
    catalog = Catalog.open(folder)
    assert "upgrade refdesk" in catalog.damaged["c"]
    catalog.close()
    assert file.read_bytes() == before


def test_a_damaged_corpus_that_is_asked_for_again_and_again_keeps_nothing(folder: Path) -> None:
    (folder / "c" / "g1" / "corpus.db").write_bytes(b"rubbish" * 1000)
    catalog = Catalog.open(folder)
    depths = []
    for _ in range(3):
        with pytest.raises(ApiError) as failure:
            catalog.get("c")
        depths.append(len(failure.traceback))
    assert depths[0] == depths[2]
    catalog.close()


def test_what_is_said_of_a_damaged_text_does_not_repeat_it(folder: Path) -> None:
    catalog = Catalog.open(folder)
    store = catalog.get("c")
    with sqlite3.connect(folder / "c" / "g1" / "corpus.db") as db:
        db.execute("UPDATE chunks SET text = CAST(x'736563726574ff' AS TEXT)")
    db.close()
    with pytest.raises(ApiError) as failure:
        store.fetch([1])
    assert failure.value.code == "corpus_damaged"
    assert "secret" not in failure.value.message
    catalog.close()


def test_damage_that_shows_up_while_running_names_the_file(folder: Path) -> None:
    catalog = Catalog.open(folder)
    store = catalog.get("c")
    file = folder / "c" / "g1" / "corpus.db"
    # The pages of documents and chunks; the header and the schema stay.
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(ApiError) as failure:
        store.fetch([1])
    assert failure.value.code == "corpus_damaged"
    with pytest.raises(ApiError) as failure:
        store.write([document("x", ["y"])])
    assert failure.value.code == "corpus_damaged"
    catalog.close()
