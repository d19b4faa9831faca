"""What was acknowledged is on the disk, and not in the system's memory alone, when it is answered.

A killed process shows nothing of it: the system writes later what the process has left.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.stores.corpus import CorpusSpec, Preferences
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.acknowledged import NOTE
from tests.corpora import STAMP, document
from tests.powercut import require_told, unwritten_pages
from tests.works import items

LATER = datetime(2100, 1, 1, tzinfo=UTC)
# Made anew from the rest of what is on the disk, or a hint that may be older.
REPLACEABLE = (NOTE, ".lock", "corpus.db-shm", "catalogue.db-shm")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    require_told(tmp_path)
    return tmp_path


@pytest.fixture
def catalog(data: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(data / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    yield catalog
    catalog.close()


def unwritten(data: Path) -> dict[str, int]:
    """The files of a data folder that a power cut would take something of."""
    found = {
        str(path.relative_to(data)): unwritten_pages(path)
        for path in data.rglob("*")
        if path.is_file() and path.name not in REPLACEABLE and not path.name.startswith(".tantivy")
    }
    return {name: pages for name, pages in found.items() if pages}


def test_after_each_answer_nothing_is_in_memory_alone(catalog: Catalog, data: Path) -> None:
    store, engine = catalog.get("c"), catalog.engine("c")
    assert unwritten(data) == {}
    for number in range(3):
        store.write([document(f"d{number}", [f"word{number} " * 500])])
        assert unwritten(data) == {}
    store.write([document("d0", ["replaced"])])
    assert unwritten(data) == {}
    store.delete(["d1"])
    assert unwritten(data) == {}
    store.configure(Preferences(readers=("ann",)))
    assert unwritten(data) == {}
    dark = engine.build(Cut.of(store.info))
    dark.write(list(store.whole(["d0", "d2"]).values()))
    assert unwritten(data) == {}
    with store.sealed():
        engine.swap("c", LATER)
    assert unwritten(data) == {}


def test_a_job_that_was_taken_in_is_on_the_disk(data: Path) -> None:
    database = CatalogueDatabase.open("", data)
    Jobs(database).submit("ingest", "c", {}, "me", items=items(20, size=5000))
    assert unwritten(data) == {}
    database.close()
