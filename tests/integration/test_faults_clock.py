"""A clock that goes backwards: what was stored before bears times of the future."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.retrieve.catalogue.database import FILE, CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.search.recency import age_days
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from tests.corpora import STAMP, document
from tests.invariants import require_sound
from tests.works import copying, ended, items, running

YEARS = timedelta(days=3650)


def test_documents_of_the_future_are_replaced_and_deleted_like_others(tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + YEARS
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    store = catalog.get("c")
    early = [replace(document(name, [f"{name} early"]), updated_at=ahead) for name in "abc"]
    store.write(early)
    before = {one.id: one for one in store.revisions()}
    keys = store.keys_of("b")
    assert age_days({}, None, store.described(keys)[keys[0]].updated_at, datetime.now(UTC)) == 0
    store.write([document("a", ["a late"])])
    store.delete(["c"])
    expected = {"a": document("a", ["a late"]), "b": early[1]}
    require_sound(store, expected)
    changed = store.document("a")
    assert changed is not None
    assert changed.version == 2
    assert changed.updated_at < ahead
    # A reindex sees that the one has changed, and the other has not.
    after = {one.id: one for one in store.revisions()}
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    catalog.close()
    again = Catalog.open(tmp_path / "corpora")
    require_sound(again.get("c"), expected)
    again.close()


def test_a_previous_generation_is_kept_until_its_time_comes_again(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    live, engine = catalog.get("c"), catalog.engine("c")
    live.write([document("old", ["old words"])])
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    engine.build(Cut.of(live.info))
    with live.sealed():
        engine.swap("c", until)
    catalog.reopen("c")
    for now in (until - YEARS, until - timedelta(seconds=1)):
        assert not engine.forget("c", now)
    assert [one.state for one in engine.generations("c")] == ["previous", "live"]
    dark = engine.revive("c")
    require_sound(dark, {"old": document("old", ["old words"])})
    catalog.close()


async def test_jobs_of_the_future_are_done_in_the_order_of_their_coming(tmp_path: Path) -> None:
    database = CatalogueDatabase.open("", tmp_path)
    jobs = Jobs(database)
    first, _ = jobs.submit("ingest", "c", {}, "me", items=items(4))
    second, _ = jobs.submit("ingest", "c", {}, "me", items=items(4))
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        ahead = (datetime.now(UTC) + YEARS).replace(tzinfo=None).isoformat(" ")
        db.execute(
            "UPDATE jobs SET created_at = ?, started_at = ?, state = 'running', worker = 'gone',"
            " attempt = 1 WHERE id = ?",
            (ahead, ahead, first.id),
        )
    async with running(database, {"ingest": copying(tmp_path / "out")}, lease_s=0.2):
        for sent in (first, second):
            job = await ended(jobs, sent.id)
            assert (job.state, job.progress.documents) == ("succeeded", 4)
    assert [job.id for job in jobs.list()] == [second.id, first.id]
    database.close()
