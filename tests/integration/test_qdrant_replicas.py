"""Two processes with one Qdrant and one catalogue, each with its own idea of what there is."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from services.retrieve.app import create_app
from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer.carry import Carrying
from services.retrieve.corpus.transfer.restore import clear_away
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.tables import GENERATIONS
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError
from shared.settings import Settings
from tests.corpora import STAMP, document
from tests.qdrant import cut, memory_link
from tests.suite import serving

LATER = datetime(2030, 1, 1, tzinfo=UTC)
Two = tuple[Catalog, Catalog]


@pytest.fixture
def two(tmp_path: Path, catalogue_url: str) -> Iterator[Two]:
    link = memory_link()
    databases = [CatalogueDatabase.open(catalogue_url, tmp_path) for _ in range(2)]
    catalogs = [
        Catalog(
            {
                "local": LocalEngine.at(tmp_path / f"corpora-{number}"),
                "qdrant": QdrantEngine(database, link, patience_s=2.0),
            },
            "qdrant",
        )
        for number, database in enumerate(databases)
    ]
    yield catalogs[0], catalogs[1]
    for catalog in catalogs:
        catalog.close()
    for database in databases:
        database.close()


def swap(catalog: Catalog) -> None:
    """Put a new, empty generation in the place of the live one."""
    engine, live = catalog.engine("c"), catalog.get("c")
    engine.build(cut())
    with live.sealed():
        engine.swap("c", LATER)
        catalog.reopen("c")


def filled_in_part(catalog: Catalog) -> None:
    with catalog.adding(cut()) as store:
        store.write([document("a", ["word"])])
        raise ZeroDivisionError


def until(seen: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_what_another_process_makes_and_deletes_comes_and_goes(two: Two) -> None:
    one, other = two
    one.create(CorpusSpec("c"), STAMP)
    one.get("c").write([document("a", ["word"])])
    other.follow()
    assert len(other.get("c").bm25("word", 5)) == 1
    one.get("c").write([document("b", ["word"])])
    assert other.get("c").info.documents == 1
    other.follow()
    assert other.get("c").info.documents == 2
    store = other.get("c")
    other.follow()
    assert other.get("c") is store
    one.delete("c")
    with pytest.raises(ApiError) as caught:
        other.get("c").bm25("word", 5)
    assert caught.value.status == 404
    other.follow()
    with pytest.raises(ApiError, match="there is no corpus 'c'"):
        other.get("c")
    one.create(CorpusSpec("c", "another"), STAMP)
    other.follow()
    assert (other.get("c").info.description, other.get("c").info.documents) == ("another", 0)
    other.delete("c")
    one.follow()
    assert one.list() == []


def test_a_write_goes_to_the_generation_that_another_process_swapped_in(two: Two) -> None:
    one, other = two
    one.create(CorpusSpec("c"), STAMP)
    other.follow()
    swap(one)
    with pytest.raises(RetiredError):
        other.get("c").write([document("a", ["word"])])
    other.follow()
    assert other.get("c").info.generation == 2
    other.get("c").write([document("a", ["word"])])
    assert len(one.get("c").bm25("word", 5)) == 1
    swap(other)
    one.follow()
    assert one.get("c").info.generation == 3


async def test_a_change_that_another_processs_swap_overtook_is_made_in_the_live_generation(
    two: Two, tmp_path: Path, catalogue_url: str
) -> None:
    one, other = two
    one.create(CorpusSpec("c"), STAMP)
    one.get("c").write([document("a", ["word"])])
    other.follow()  # and not by itself any more
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    app = create_app(Settings(data_dir=tmp_path), other, database)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        swap(one)
        answer = await client.patch("/corpora/c", json={"description": "changed"})
        assert (answer.status_code, answer.json()["description"]) == (200, "changed")
        swap(one)
        one.get("c").write([document("b", ["word"])])
        assert (await client.delete("/corpora/c/documents/b")).status_code == 204
    one.follow()
    assert (one.get("c").info.description, one.get("c").info.documents) == ("changed", 0)


def test_a_corpus_that_another_process_moves_here_is_served_from_there(two: Two) -> None:
    one, _ = two
    one.create(CorpusSpec("c"), STAMP, engine="local")
    assert one.get("c").info.engine == "local"
    engine, live = one.engines["qdrant"], one.get("c")
    engine.build(cut(), above=1)
    with live.sealed():
        engine.swap("c", LATER)
        one.follow()
        assert one.get("c") is live  # what is read back of the other may still be found wrong
        one.engine("c").step_down("c", LATER)
        one.reopen("c")
    for catalog in two:
        catalog.follow()
        assert (catalog.get("c").info.engine, catalog.get("c").info.generation) == ("qdrant", 2)


def test_a_corpus_that_is_being_filled_is_on_no_replica_before_it_is_whole(two: Two) -> None:
    one, other = two
    with pytest.raises(ZeroDivisionError):
        filled_in_part(one)
    with one.adding(cut()) as store:
        store.write([document("a", ["word"])])
        for catalog in two:
            catalog.follow()
            assert catalog.list() == []
    other.follow()
    for catalog in two:
        assert len(catalog.get("c").bm25("word", 5)) == 1
        assert [made.state for made in catalog.engine("c").generations("c")] == ["live"]
    with pytest.raises(ApiError, match="'d' was made meanwhile"), one.adding(cut("d")):
        other.create(CorpusSpec("d"), STAMP)
    one.follow()
    assert one.get("d").info.documents == 0


def test_what_is_written_before_a_backup_is_whole_is_carried_over_whatever_made_the_words(
    two: Two, tmp_path: Path
) -> None:
    one, _ = two
    one.create(CorpusSpec("c"), STAMP)
    live, engine = one.get("c"), one.engine("c")
    live.write([document("a", ["word"])])
    assert isinstance(engine, QdrantEngine)
    with engine._database.begin() as connection:
        connection.execute(sa.update(GENERATIONS).values(analyser="words-1"))
    with closing(Carrying(live, tmp_path)) as carrying:
        live.write([document("b", ["word"])])
        assert live.info.analyser == ""
        dark = engine.build(Cut.of(live.info))
        carrying.carry(dark)
    assert [found.id for found in dark.documents(5, None)] == ["b"]


def test_of_two_that_build_one_corpus_the_first_gives_way_and_harms_nothing(two: Two) -> None:
    one, other = two
    first = one.adding(cut())
    store = first.__enter__()
    store.write([document("a", ["word"])])
    with other.adding(cut()) as later:  # the other's generation is in the place of the first one
        with pytest.raises(ApiError) as refused:
            first.__exit__(None, None, None)
        assert refused.value.code == "no_dark_generation"
        assert one.list() == other.list() == []
        later.write([document("b", ["word"])])
    one.follow()
    for catalog in two:
        assert [found.id for found in catalog.get("c").documents(5, None)] == ["b"]


def test_a_restore_that_died_takes_nothing_along_that_another_process_made(
    two: Two, tmp_path: Path
) -> None:
    one, other = two
    qdrant = one.engine_named("qdrant")
    transfers = tmp_path / "transfers"

    note = transfers / "restoring-c"
    transfers.mkdir()
    qdrant.build(cut()).write([document("half", ["word"])])
    (dark,) = qdrant.generations("c")
    note.write_text(dark.made_at.isoformat())
    clear_away(transfers, one)
    assert (qdrant.generations("c"), list(transfers.iterdir())) == ([], [])
    with other.adding(cut()) as store:
        store.write([document("whole", ["word"])])
        note.write_text(dark.made_at.isoformat())
        clear_away(transfers, one)
    one.follow()
    note.write_text(dark.made_at.isoformat())
    clear_away(transfers, one)
    for catalog in two:
        assert catalog.get("c").info.documents == 1


def test_the_corpora_are_followed_in_the_background_and_through_an_outage(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr("services.retrieve.corpus.catalog._FOLLOW_S", 0.01)
    looks: list[int] = []
    real = QdrantEngine.look

    def failing(self: QdrantEngine) -> object:
        looks.append(1)
        if len(looks) == 1:
            raise ApiError(503, "catalogue_unavailable", "the catalogue does not answer")
        if len(looks) == 2:
            raise SQLAlchemyError("something else")
        return real(self)

    monkeypatch.setattr(QdrantEngine, "look", failing)
    other.start()
    one.create(CorpusSpec("c"), STAMP)
    until(lambda: len(other.list()) == 1)
    swap(one)
    until(lambda: other.get("c").info.generation == 2)
    one.delete("c")
    until(lambda: other.list() == [])
    assert len(looks) > 2
