"""Generations in Qdrant: how one follows another, and what a process leaves that dies."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.lifecycle import Collections
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.tables import METADATA
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError
from tests.corpora import DIMENSION, document, vector_of
from tests.qdrant import cut, memory_link, qdrant_engine, replica

LATER = datetime(2030, 1, 1, tzinfo=UTC)


class DiedError(BaseException):
    """As if the process were no more."""


@pytest.fixture
def link() -> Link:
    return memory_link()


@pytest.fixture
def engine(tmp_path: Path, link: Link, catalogue_url: str) -> Iterator[QdrantEngine]:
    with qdrant_engine(tmp_path, link, catalogue_url) as engine:
        yield engine


def collections(link: Link) -> set[str]:
    return {one.name for one in link.client.get_collections().collections}


def aliases(link: Link) -> dict[str, str]:
    return {one.alias_name: one.collection_name for one in link.client.get_aliases().aliases}


def told(engine: QdrantEngine) -> list[tuple[int, str, int]]:
    return [(one.number, one.state, one.documents) for one in engine.generations("c")]


def test_a_corpus_comes_and_goes_with_all_it_has(engine: QdrantEngine, link: Link) -> None:
    assert engine.names() == []
    store = engine.create(cut())
    assert (store.info.name, store.info.engine, store.info.generation) == ("c", "qdrant", 1)
    with pytest.raises(ApiError) as caught:
        engine.create(cut())
    assert caught.value.code == "corpus_exists"
    engine.create(cut("b"))
    assert engine.names() == ["b", "c"]
    store.write([document("a", ["word"])])
    engine.build(cut())
    engine.delete("c")
    assert engine.names() == ["b"]
    assert len(collections(link)) == len(aliases(link)) == 1
    with pytest.raises(ApiError) as caught:
        engine.open("c")
    assert caught.value.status == 404
    engine.delete("c")
    engine.discard("c")
    assert (engine.dark("c"), list(engine.generations("c"))) == (None, [])
    assert store.keys_of("a") == []
    with pytest.raises(ApiError) as caught:
        store.bm25("word", 5)
    assert (caught.value.status, caught.value.code) == (404, "corpus_not_found")
    again = engine.create(cut())
    assert (again.info.documents, again.info.writes) == (0, 0)
    assert again.bm25("word", 5) == []


def test_two_catalogues_in_one_qdrant_leave_each_other_alone(link: Link, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        qdrant_engine(tmp_path / "one", link) as one,
        qdrant_engine(tmp_path / "other", link) as other,
    ):
        one.create(cut()).write([document("a", ["word"])])
        assert other.create(cut()).bm25("word", 5) == []
        other.delete("c")
        assert len(one.open("c").bm25("word", 5)) == 1


def test_a_dark_generation_takes_the_place_of_the_live_one(
    engine: QdrantEngine, link: Link
) -> None:
    live = engine.create(cut())
    live.write([document("a", ["old word"])])
    live.write([document("b", ["old word"])])
    assert engine.dark("c") is None
    other = replace(cut(), spec=CorpusSpec("c", language="de", chunk_tokens=64), chunker="new-1")
    dark = engine.build(replace(other, stamp=ModelStamp("other", "r2", DIMENSION)))
    dark.write([document("a", ["new word"])])
    assert told(engine) == [(1, "live", 2), (2, "dark", 1)]
    assert len(engine.open("c").bm25("new", 5)) == 0
    assert engine.dark("c") is not None
    with live.sealed():
        engine.swap("c", LATER)
    assert told(engine) == [(1, "previous", 2), (2, "live", 1)]
    new = engine.open("c")
    assert (new.info.generation, new.info.language, new.info.model) == (2, "de", "other")
    assert new.info.writes > live.info.writes
    assert aliases(link) == {"refdesk_c.live": new._points.collection}
    assert new is dark
    assert (new.writable, live.writable) == (True, False)
    assert len(live.bm25("old", 5)) == 2
    with pytest.raises(RetiredError):
        live.write([document("c", ["word"])])
    new.write([document("c", ["word"])])
    with pytest.raises(ApiError) as caught:
        engine.swap("c", LATER)
    assert (caught.value.status, caught.value.code) == (409, "no_dark_generation")


def test_what_is_swapped_in_as_the_first_retires_no_other(engine: QdrantEngine) -> None:
    engine.build(cut()).write([document("a", ["word"])])
    live = replica(engine).create(cut())
    live.write([document("b", ["word"])])
    with pytest.raises(ApiError) as caught:
        engine.swap("c", None)
    assert (caught.value.status, caught.value.code) == (409, "corpus_exists")
    engine.discard("c")
    assert told(engine) == [(2, "live", 1)]
    live.write([document("d", ["word"])])


def test_a_catalogue_that_fails_after_it_was_written_undoes_no_success(
    engine: QdrantEngine, link: Link
) -> None:
    def unavailable(_: CatalogueDatabase) -> None:
        raise ApiError(503, "catalogue_unavailable", "the catalogue does not answer")

    live = engine.create(cut())
    engine.build(cut())
    with pytest.MonkeyPatch.context() as patch, live.sealed():
        patch.setattr(CatalogueDatabase, "read", unavailable)
        engine.swap("c", LATER)
        patch.setattr(CatalogueDatabase, "begin", unavailable)  # the seal runs out by itself
    assert told(engine) == [(1, "previous", 0), (2, "live", 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CatalogueDatabase, "read", unavailable)
        assert engine.forget("c", LATER)
        engine.delete("c")
    assert len(collections(link)) == 2
    again = replica(engine)  # when an engine is opened, what is left goes
    assert (again.names(), collections(link)) == ([], set())


def test_another_replicas_store_is_retired_by_the_swap(engine: QdrantEngine) -> None:
    engine.create(cut())
    other = replica(engine).open("c")
    engine.build(cut())
    with engine.open("c").sealed():
        engine.swap("c", LATER)
    with pytest.raises(RetiredError):
        other.write([document("a", ["word"])])
    with pytest.raises(RetiredError):
        other.delete(["a"])


def test_a_rollback_brings_the_previous_generation_back(engine: QdrantEngine) -> None:
    live = engine.create(cut())
    live.write([document("a", ["old word"])])
    engine.build(cut()).write([document("b", ["word"])])
    with live.sealed():
        engine.swap("c", LATER)
    writes = engine.open("c").info.writes
    revived = engine.revive("c")
    assert told(engine) == [(2, "live", 1), (3, "dark", 1)]
    revived.write([document("b", ["word"])])
    with engine.open("c").sealed():
        engine.swap("c", LATER)
    now = engine.open("c")
    assert (now.info.generation, now.info.documents) == (3, 2)
    assert now.info.writes > writes
    assert len(now.dense(vector_of("word"), 5)) == 2
    engine.forget("c", LATER)
    with pytest.raises(ApiError) as caught:
        engine.revive("c")
    assert (caught.value.status, caught.value.code) == (409, "no_previous_generation")


def test_the_previous_generation_goes_when_its_time_is_over(
    engine: QdrantEngine, link: Link
) -> None:
    live = engine.create(cut())
    assert not engine.forget("c", LATER)
    engine.build(cut())
    engine.build(cut())  # in the place of the one before
    assert len(collections(link)) == 2
    with live.sealed():
        engine.swap("c", LATER)
    assert [one.until for one in engine.generations("c")] == [LATER, None]
    assert not engine.forget("c", LATER - timedelta(seconds=1))
    assert engine.forget("c", LATER)
    assert len(collections(link)) == 1
    engine.build(cut())
    engine.discard("c")
    engine.discard("c")
    assert engine.dark("c") is None
    assert len(collections(link)) == 1


def test_a_seal_that_ran_out_lets_nothing_be_swapped(
    engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.retrieve.stores.qdrant.standing._SEAL_S", -1.0)
    live = engine.create(cut())
    engine.build(cut())
    with pytest.raises(ApiError, match="held too long"), live.sealed():
        engine.swap("c", LATER)
    assert told(engine) == [(1, "live", 0), (2, "dark", 0)]
    live.write([document("a", ["word"])])


def test_a_process_that_stood_still_over_its_seal_leaves_the_next_ones_alone(
    engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, writer = engine.create(cut()), replica(engine).open("c")
    engine.build(cut())
    other = replica(engine).open("c")

    def go_on() -> None:
        monkeypatch.undo()
        with other.sealed():
            with pytest.raises(ApiError, match="held too long"):
                engine.swap("c", LATER)  # it is held, but not by this one
            ended.close()
            with pytest.raises(ApiError, match="about to get another generation"):
                writer.write([document("a", ["word"])])

    with ExitStack() as ended:
        monkeypatch.setattr("services.retrieve.stores.qdrant.standing._SEAL_S", -1.0)
        ended.enter_context(late.sealed())
        go_on()
    assert told(engine) == [(1, "live", 0), (2, "dark", 0)]
    writer.write([document("a", ["word"])])


def test_a_corpus_is_sealed_by_one_process_at_a_time(engine: QdrantEngine) -> None:
    engine.create(cut())
    one, other = engine.open("c"), replica(engine).open("c")
    with one.sealed():
        with pytest.raises(ApiError, match="another process gives corpus 'c'") as caught:
            other.sealed().__enter__()
        assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
    with other.sealed():
        pass


def test_the_seal_of_a_process_that_died_is_gone_when_the_next_one_starts(
    tmp_path: Path, link: Link
) -> None:
    with qdrant_engine(tmp_path, link) as engine:
        dying = engine.create(cut()).sealed()
        dying.__enter__()
        with qdrant_engine(tmp_path, link) as after:
            after.open("c").write([document("a", ["word"])])


def test_a_corpus_moves_in_from_another_engine_and_out_again(
    engine: QdrantEngine, link: Link
) -> None:
    spec = CorpusSpec("c", description="moved", readers=("hr",))
    dark = engine.build(replace(cut(), spec=spec), above=4)
    dark.write([document("a", ["word"])])
    assert engine.names() == []
    with pytest.raises(ApiError):
        engine.open("c")
    engine.swap("c", LATER)
    assert told(engine) == [(5, "live", 1)]
    live = engine.open("c")
    assert (live.info.description, live.info.readers) == ("moved", ("hr",))
    assert engine.names() == ["c"]
    with live.sealed():
        engine.step_down("c", LATER)
    engine.step_down("c", LATER)
    assert (engine.names(), aliases(link)) == ([], {})
    assert told(engine) == [(5, "previous", 1)]
    engine.build(replace(cut(), spec=CorpusSpec("c", description="back")), above=6)
    assert told(engine) == [(5, "previous", 1), (7, "dark", 0)]
    engine.discard("c")
    assert engine.forget("c", LATER)
    assert (told(engine), collections(link)) == ([], set())
    again = engine.create(cut())
    assert again.info.generation == 1


@pytest.mark.parametrize(
    ("owner", "name", "swapped"),
    [
        (Collections, "set_alias", True),
        (Collections, "remove_dropped", True),
        (Points, "drop", True),
    ],
)
def test_a_swap_that_dies_is_done_or_not(
    tmp_path: Path, link: Link, owner: type[Any], name: str, swapped: bool
) -> None:
    def die(*_: object) -> None:
        raise DiedError

    with qdrant_engine(tmp_path, link) as engine:
        live = engine.create(cut())
        live.write([document("a", ["word"])])
        engine.build(cut())
        with live.sealed():
            engine.swap("c", LATER)
        engine.build(cut()).write([document("b", ["word"]), document("c", ["word"])])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(DiedError):
                engine.swap("c", LATER)
    with qdrant_engine(tmp_path, link) as engine:
        opened = engine.open("c")
        assert (opened.info.generation == 3) is swapped
        assert aliases(link) == {"refdesk_c.live": opened._points.collection}
        assert len(collections(link)) == 2
        opened.write([document("d", ["word"])])


@pytest.mark.parametrize(("owner", "name"), [(Points, "make"), (Collections, "keep")])
def test_a_creation_that_dies_leaves_nothing(
    tmp_path: Path, link: Link, owner: type[Any], name: str
) -> None:
    def die(*_: object, **__: object) -> None:
        raise DiedError

    with qdrant_engine(tmp_path, link) as engine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, die)
            patch.setattr(Collections, "remove_dropped", die)
            with pytest.raises(DiedError):
                engine.create(cut())
        assert engine.names() == []
    with qdrant_engine(tmp_path, link) as engine:
        assert collections(link) == set()
        engine.create(cut()).write([document("a", ["word"])])
        assert len(collections(link)) == 1


def test_an_unknown_language_is_refused_before_anything_is_made(
    engine: QdrantEngine, link: Link
) -> None:
    with pytest.raises(ApiError, match="ISO 639-1"):
        engine.create(replace(cut(), spec=CorpusSpec("c", language="xx")))
    assert (engine.names(), collections(link)) == ([], set())


def test_the_migrations_make_the_tables_that_the_queries_expect(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    with database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
    # Tables of others are there, too; of ours nothing differs.
    assert [one for one in found if "qdrant" in str(one)] == []
    database.close()
