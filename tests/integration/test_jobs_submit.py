"""How jobs come in: whole or not at all, once for a key, and no more than there is room for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs import leases as leases_module
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.leases import Leases, News
from services.retrieve.jobs.model import Item
from services.retrieve.jobs.tables import ITEMS, JOBS
from shared.errors import ApiError
from tests.works import items

KIB = 1 << 10


@pytest.fixture
def database(catalogue_url: str, tmp_path: Path) -> Iterator[CatalogueDatabase]:
    database = CatalogueDatabase.open(catalogue_url, tmp_path)
    yield database
    database.close()


def rows(database: CatalogueDatabase, table: sa.Table) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_the_same_key_with_the_same_content_is_one_job(database: CatalogueDatabase) -> None:
    jobs = Jobs(database)

    def send(
        key: str | None = "k", who: str = "me", count: int = 600, **request: int
    ) -> tuple[str, bool]:
        job, new = jobs.submit("ingest", "c", request, who, items=items(count), idempotency_key=key)
        return job.id, new

    first, new = send(a=1, b=2)
    assert new
    assert send(b=2, a=1) == (first, False)
    assert send(who="you", a=1, b=2)[1]
    assert send(key=None, a=1, b=2)[1]
    assert rows(database, JOBS) == 3
    assert rows(database, ITEMS) == 1800
    for other in ({"count": 599}, {"a": 1}):
        with pytest.raises(ApiError, match=first) as caught:
            send(**other)
        assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")
    assert rows(database, JOBS) == 3
    for bad in ("", "x" * 256, "a\0b", "half \ud800"):
        with pytest.raises(ApiError) as caught:
            send(key=bad)
        assert caught.value.code == "bad_idempotency_key"


def test_the_same_key_sent_many_times_at_once_is_one_job(database: CatalogueDatabase) -> None:
    jobs = Jobs(database)
    with ThreadPoolExecutor(8) as pool:
        sent = list(
            pool.map(
                lambda _: jobs.submit("ingest", "c", {}, "me", items=items(5), idempotency_key="k"),
                range(16),
            )
        )
    assert len({job.id for job, _ in sent}) == 1
    assert [new for _, new in sent].count(True) == 1
    assert rows(database, JOBS) == 1


def test_a_payload_that_breaks_off_leaves_nothing(database: CatalogueDatabase) -> None:
    def broken() -> Iterator[Item]:
        yield from items(300)
        raise ApiError(422, "invalid_request", "line 301 is no JSON")

    with pytest.raises(ApiError, match="line 301"):
        Jobs(database).submit("ingest", "c", {}, "me", items=broken())
    assert (rows(database, JOBS), rows(database, ITEMS)) == (0, 0)


def test_a_payload_comes_back_as_it_was_a_piece_at_a_time(
    database: CatalogueDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "_PAGE_BYTES", 32 * KIB)
    jobs, leases = Jobs(database), Leases(database)
    sent = [
        Item(0, "a\0b/é \ud800.txt", {"title": "x\0y", "n": [1, None]}, bytes(range(256))),
        Item(1, "", {}, b""),
        *(Item(seq, f"big{seq}", {}, bytes(20 * KIB)) for seq in (2, 3, 7)),
    ]
    jobs.submit("ingest", "c", {}, "me", items=sent)
    lease = leases.claim(leases.waiting(["ingest"])[0], "w")
    assert lease is not None
    pages, after = [], -1
    while page := leases.items(lease, after, 100):
        pages.append([item.seq for item in page])
        after = page[-1].seq
    assert pages == [[0, 1, 2], [3], [7]]
    first, empty = leases.items(lease, -1, 2)
    assert (first.data, first.options) == (sent[0].data, sent[0].options)
    assert first.name == "a�b/é ?.txt"
    assert (empty.name, empty.data) == ("", b"")


def test_what_waits_is_bounded(database: CatalogueDatabase) -> None:
    jobs, leases = Jobs(database, waiting_mb=1), Leases(database)
    with pytest.raises(ApiError) as caught:
        jobs.submit("ingest", "c", {}, "me", items=items(11, size=100 * KIB))
    assert (caught.value.status, caught.value.code) == (413, "job_too_large")
    jobs.submit("ingest", "c", {}, "me", items=items(9, size=100 * KIB))
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            jobs.submit("ingest", "c", {}, "me", items=items(9, size=100 * KIB))
        assert (caught.value.status, caught.value.code) == (429, "too_many_jobs")
        assert int(caught.value.headers["Retry-After"]) > 0
    assert rows(database, JOBS) == 1
    lease = leases.claim(leases.waiting(["ingest"])[0], "w")
    assert lease is not None
    leases.finish(lease, News(), "succeeded", "{}")
    jobs.submit("ingest", "c", {}, "me", items=items(9, size=100 * KIB))
    while leases.sweep():
        pass
    assert rows(database, ITEMS) == 9


def test_history_is_kept_and_then_forgotten(database: CatalogueDatabase) -> None:
    jobs, leases = Jobs(database), Leases(database)
    old, _ = jobs.submit("ingest", "c", {}, "me")
    lease = leases.claim(leases.waiting(["ingest"])[0], "w")
    assert lease is not None
    leases.finish(lease, News(), "succeeded", "{}")
    waiting, _ = jobs.submit("ingest", "c", {}, "me")
    assert jobs.prune(1) == 0
    assert jobs.prune(0) == 1
    assert [job.id for job in jobs.list()] == [waiting.id]
    with pytest.raises(ApiError, match="there is no job"):
        jobs.get(old.id)
