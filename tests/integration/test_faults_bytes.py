"""Flipped and truncated bytes in every file of a data folder.

Retrieve starts or says which file keeps it from starting; of a damaged corpus it says so; no wrong
text is ever answered, nothing fails without words, and the other corpora go on.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog.testing

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.opening import open_corpora
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.stores.base import CorpusStore, NewDocument, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.dense import DenseIndex
from shared.errors import ApiError, StartupError
from shared.settings import Settings
from tests.corpora import STAMP, document, vector_of, weighed
from tests.works import items

SEED = 77
ANN = Scope(readers=frozenset({"ann"}))
BOB = Scope(readers=frozenset({"bob"}))
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def documents() -> dict[str, NewDocument]:
    """Enough for lists of vectors, where 50 chunks are many."""
    return {
        f"d{number}": weighed(
            document(
                f"d{number}",
                [f"word{number} part{part} of many" for part in range(4)],
                title=f"title{number}",
                metadata={"number": number},
                readers=("ann",) if number % 2 else None,
            )
        )
        for number in range(24)
    }


def expected_in(corpus: str) -> dict[str, NewDocument]:
    """What is in a corpus of the data folder."""
    found = documents()
    del found["d7"]
    return found if corpus != "c" else {name: found[name] for name in ("d0", "d12", "d23")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder as a process left it that was killed, with a job, and three corpora.

    "a" was closed. "b" has sparse vectors, and its last write is in SQLite's log. "c" is being
    reindexed for the second time: it has a previous, a live and a dark generation.
    """
    data = tmp_path_factory.mktemp("whole")
    defaults = DenseIndex.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setitem(defaults, "exact", 50)
        catalog = Catalog.open(data / "corpora")
        for name, sparse in (("a", False), ("b", True)):
            catalog.create(CorpusSpec(name), STAMP, sparse=sparse)
            found = list(documents().values())
            for at in range(0, 24, 6):
                part = found[at : at + 6]
                catalog.get(name).write(part if sparse else [_unweighed(one) for one in part])
        catalog.get("a").delete(["d7"])
        catalog.close()
        catalog = Catalog.open(data / "corpora")
        catalog.get("b").delete(["d7"])
        reindex_twice(catalog)
        database = CatalogueDatabase.open("", data)
        Jobs(database).submit("ingest", "a", {}, "me", items=items(3))
        catalog.get("a").close()
        left = tmp_path_factory.mktemp("left") / "data"
        shutil.copytree(data, left, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        catalog.close()
        database.close()
        yield left


def reindex_twice(catalog: Catalog) -> None:
    catalog.create(CorpusSpec("c"), STAMP)
    found = [_unweighed(one) for one in expected_in("c").values()]
    catalog.get("c").write(found)
    live, engine = catalog.get("c"), catalog.engine("c")
    engine.build(Cut.of(live.info)).write(found)
    with live.sealed():
        engine.swap("c", LATER)
    catalog.reopen("c")
    engine.build(Cut.of(live.info)).write(found[:1])


def _unweighed(one: NewDocument) -> NewDocument:
    return document(
        one.id, [chunk.text for chunk in one.chunks], one.title, one.metadata, one.readers
    )


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def blank(data: bytes, chance: random.Random) -> bytes:
    """As a page that was never written."""
    at = chance.randrange(len(data))
    end = min(len(data), at + chance.randrange(1, 4096))
    return data[:at] + bytes(end - at) + data[end:]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [flip, blank, cut]


def files(data: Path) -> list[Path]:
    """Relative; those that hold something."""
    return sorted(
        path.relative_to(data)
        for path in data.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.endswith((".lock", "-shm"))
    )


def one_of_each_kind(data: Path) -> list[Path]:
    """Of the word indexes, which have many files, one of each kind; all other files."""
    kinds = {
        path.suffix or path.name if path.parent.name == "lexical" else str(path): path
        for path in files(data)
    }
    return sorted(kinds.values())


@pytest.mark.parametrize(
    ("chosen", "rounds"), [(one_of_each_kind, 1), pytest.param(files, 100, marks=pytest.mark.long)]
)
def test_no_damaged_file_is_answered_from(
    whole: Path, tmp_path: Path, chosen: Callable[[Path], list[Path]], rounds: int
) -> None:
    every = chosen(whole)
    for number, file in enumerate(every * rounds):
        damage = DAMAGES[(number + number // len(every)) % len(DAMAGES)]
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(whole, data)
        chance = random.Random(f"{SEED} {damage.__name__} {number}")
        content = (whole / file).read_bytes()
        (data / file).write_bytes(damage(content, chance))
        with structlog.testing.capture_logs():
            try:
                examine(data, file)
            except BaseException as error:
                error.add_note(f"{damage.__name__} of {file}, number {number}")
                raise


def examine(data: Path, file: Path) -> None:
    """Use everything in a data folder of which one file is damaged."""
    try:
        catalog, database = open_corpora(Settings(data_dir=data))
    except StartupError as error:
        if file.name in ("format.json", FILE) and str(data / file) in str(error):
            return
        raise
    with closing(database), closing(catalog):
        if file.name == FILE:
            use_jobs(database)
        assert {info.name for info in catalog.list()} | set(catalog.damaged) == {"a", "b", "c"}
        for name in ("a", "b", "c"):
            touched, expected = file.parts[:2] == ("corpora", name), expected_in(name)
            if name in catalog.damaged:
                assert touched
                assert str(data / "corpora" / name) in catalog.damaged[name]
            elif not touched:
                require_few(catalog.get(name), expected)
            else:
                use(catalog.get(name), expected)


FILE = "catalogue.db"


def require_few(store: CorpusStore, expected: dict[str, NewDocument]) -> None:
    """A corpus that nothing has happened to."""
    assert store.info.documents == len(expected)
    for name in ("d0", "d12", "d23"):
        stored = store.document(name)
        assert stored is not None
        assert stored.text == expected[name].text
        assert store.bm25(name.replace("d", "word"), 4)[0][0] in store.keys_of(name)


def use(store: CorpusStore, expected: dict[str, NewDocument]) -> None:
    """A corpus of which a file is damaged: what is answered is right, or refused in words."""
    texts = {chunk.text for one in expected.values() for chunk in one.chunks}
    problems = []

    def tried(work: Callable[[], None]) -> None:
        try:
            work()
        except ApiError as error:
            if error.code not in ("corpus_damaged", "storage_failed"):
                raise
            problems.append(error)

    def listed() -> None:
        there = {one.id for one in store.documents(1000, None)}
        if there != set(expected):
            problems.append(ApiError(500, "listed", "others"))

    def read(name: str) -> None:
        stored = store.document(name)
        if stored is None:
            problems.append(ApiError(500, "missing", name))
        else:
            assert stored.text == expected[name].text
            assert stored.metadata == expected[name].metadata
            assert stored.readers == expected[name].readers

    def searched(name: str) -> None:
        one = expected[name]
        for record in store.fetch([key for key, _ in store.bm25("part1", 24, BOB)]).values():
            assert expected[record.document_id].readers is None
        for hits in (
            store.bm25(name.replace("d", "word"), 4),
            store.dense(vector_of(one.chunks[0].text), 4),
            store.bm25("part1", 10, ANN),
        ):
            for record in store.fetch([key for key, _ in hits]).values():
                assert record.text in texts
                assert record.text in expected[record.document_id].text
        if not store.bm25(name.replace("d", "word"), 4):
            problems.append(ApiError(500, "not found", name))

    tried(listed)
    for name in ("d0", "d12", "d23"):
        tried(lambda name=name: read(name))  # type: ignore[misc]
        tried(lambda name=name: searched(name))  # type: ignore[misc]
    findings = list(store.verify())
    if problems:
        assert findings, problems
    if not findings:
        require_few(store, expected)


def use_jobs(database: CatalogueDatabase) -> None:
    """The catalogue, of which the file is damaged."""
    try:
        jobs = Jobs(database)
        for job in jobs.list():
            jobs.get(job.id)
        jobs.submit("ingest", "b", {}, "me", items=items(1))
    except ApiError as error:
        if error.code not in ("catalogue_damaged", "storage_failed", "storage_full"):
            raise
