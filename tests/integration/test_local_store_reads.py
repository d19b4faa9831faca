"""How much of its database a store reads: counted in steps of SQLite's machine and in parses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import EVERYTHING, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.filters import parse_filter
from services.retrieve.stores.local.database import Database
from tests.corpora import STAMP, document


class Reads:
    """A corpus whose reading is counted. steps: of SQLite. parsed: of metadata."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.steps = 0
        self.parsed = 0

    @contextmanager
    def counting(self, patch: pytest.MonkeyPatch) -> Iterator[Database]:
        """A database whose only reader counts what is done in the block."""
        database = Database.open(self._folder)
        loads = json.loads

        def step() -> None:
            self.steps += 1

        def parse(text: str) -> object:
            self.parsed += 1
            return loads(text)

        database.info()  # a reader is in the pool now
        database._pool[0].set_progress_handler(step, 1)
        self.steps = self.parsed = 0
        with patch.context() as changed:
            changed.setattr(json, "loads", parse)
            yield database
        database.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "corpora")
    opened.create(CorpusSpec("c"), STAMP)
    yield opened
    opened.close()


@pytest.fixture
def reads(catalog: Catalog, tmp_path: Path) -> Reads:
    return Reads(tmp_path / "corpora" / "c" / "g1")


def test_a_document_is_read_once_however_many_of_its_chunks_are_asked_for(
    catalog: Catalog, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = document("long", [f"chunk {n}" for n in range(600)], metadata={"a": "b" * 4000})
    catalog.get("c").write([long])
    keys = catalog.get("c").keys_of("long")
    for reach in (None, 20):
        with reads.counting(monkeypatch) as database:
            database.neighbours(keys[300:301], reach)
        one = reads.steps
        with reads.counting(monkeypatch) as database:
            found = database.neighbours(keys[::10], reach)
        assert len(found) == 60
        assert reads.parsed == 1
        # Of each of the sixty the 41 chunks around it are given, and 600 are read in all.
        assert reads.steps < (2 * one if reach is None else 20 * one)
    assert len({id(record) for chunks in found.values() for record in chunks}) == 600


def test_what_is_fetched_and_described_is_parsed_once_for_each_document(
    catalog: Catalog, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"chunk {n}" for n in range(50)]
    catalog.get("c").write([document(name, texts, metadata={"a": name}) for name in "xyz"])
    keys = [key for name in "xyz" for key in catalog.get("c").keys_of(name)]
    with reads.counting(monkeypatch) as database:
        assert len(database.fetch(keys)) == 150
        assert len(database.described(keys)) == 150
    assert reads.parsed == 6


@pytest.fixture(scope="module")
def nine_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reads]:
    """A corpus of that many documents, which nobody changes."""
    folder = tmp_path_factory.mktemp("many") / "corpora"
    opened = Catalog.open(folder)
    opened.create(CorpusSpec("c"), STAMP)
    opened.get("c").write([document(f"d{n:05}", ["x"]) for n in range(9000)])
    yield Reads(folder / "c" / "g1")
    opened.close()


@pytest.mark.parametrize(
    "scope",
    [
        EVERYTHING,
        Scope(readers=frozenset({"hr"})),
        Scope(parse_filter({"type": "ne", "key": "team", "value": "red"})),
    ],
)
def test_a_page_of_documents_does_not_read_all_of_them(
    nine_thousand: Reads, monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    reads = nine_thousand
    with reads.counting(monkeypatch) as database:
        page = [one.id for one in database.documents(3, "d00100", scope)]
    assert page == ["d00101", "d00102", "d00103"]
    # A block of 4096 at most, of some five steps each.
    assert reads.steps < (1000 if scope == EVERYTHING else 25_000)
    with reads.counting(monkeypatch) as database:
        database.documents(9000, None, scope)
    assert reads.steps > 45_000
