"""What may take over and what comes back: the gates of a reindex, its swap, and rollbacks."""

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.retrieve.corpus import patience
from services.retrieve.corpus.reindex import catching_up, swapping
from services.retrieve.corpus.reindex.difference import Difference, difference
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local import layout
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.local.store import LocalStore
from services.retrieve.stores.state import Finding, Revision
from shared.errors import ApiError
from tests.ingesting import Embed
from tests.reindexing import text_of
from tests.remaking import Remaking, fill, hold, remaking, served
from tests.works import ended, until


@pytest.fixture(scope="session")
def tokenizer(minilm_dir: Path) -> bytes:
    return (minilm_dir / "tokenizer.json").read_bytes()


@pytest.fixture
def embed(tokenizer: bytes) -> Embed:
    return Embed(tokenizer)


@pytest.fixture
async def desk(tmp_path: Path, embed: Embed) -> AsyncIterator[Remaking]:
    async with remaking(tmp_path, embed) as desk:
        await fill(desk)
        yield desk


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PAUSES_S", (0.01, 0.02))


async def test_what_is_damaged_does_not_take_over(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark_only = lambda store: [Finding("chunk 7", "has no vector")]  # noqa: E731
    monkeypatch.setattr("services.retrieve.stores.local.store.LocalStore.verify", dark_only)
    job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert job.error.code == "reindex_refused"
    assert "chunk 7: has no vector" in job.error.message
    assert (served(desk), desk.states()) == ((1, 64, 40), [("local", 1, "live")])


@pytest.mark.parametrize("full", [False, True])
async def test_a_swap_whose_result_can_not_be_read_back_is_undone_at_once(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def kept(*_: object) -> None:
        raise ApiError(507, "storage_full", "the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(swapping, "_fault", lambda *_: "document 'd3' is not as it was")
        if full:
            broken.setattr(LocalEngine, "forget", kept)
        job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert job.error.code == "reindex_refused"
    assert "read back" in job.error.message
    assert desk.live.info.chunk_tokens == 64
    assert [state for _, _, state in desk.states()] == ["previous"] * full + ["live"]
    await desk.write(d3=text_of(3, turn=1))
    assert (await desk.done("reindex", chunk_tokens=128)).state == "succeeded"
    assert desk.live.info.documents == 40


async def test_a_swap_that_can_not_even_be_undone_takes_no_write_back(
    desk: Remaking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ApiError(507, "storage_full", "the disk is full")

    with monkeypatch.context() as full:
        full.setattr(swapping, "_fault", lambda *_: "document 'd3' is not as it was")
        full.setattr("services.retrieve.stores.local.engine.LocalEngine.revive", broken)
        job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert job.error.code == "corpus_damaged"
    assert "the disk is full" in job.error.message
    await desk.write(late=text_of(99))
    # What the next process would serve is what was written to.
    roles = layout.roles(tmp_path / "corpora" / "c")
    assert roles.generation is not None
    with closing(
        Database.open(layout.folder_of(tmp_path / "corpora" / "c", roles.generation))
    ) as db:
        assert "late" in db.known(["late"])
    assert [state for _, _, state in desk.states()] == ["previous", "live"]


async def test_no_list_is_read_while_writes_wait_unless_they_never_rest(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[bool] = []
    go_on = catching_up.CatchingUp.go_on

    def watched(live: Iterable[Revision], dark: Iterable[Revision]) -> Difference:
        store = desk.live
        assert isinstance(store, LocalStore)
        sealed.append(store._writing.locked())
        return difference(live, dark)

    monkeypatch.setattr("services.retrieve.corpus.reindex.catching_up.difference", watched)
    assert (await desk.done("reindex", chunk_tokens=128)).state == "succeeded"
    assert sealed
    assert not any(sealed)

    turns = itertools.count(1)

    async def overtaken(self: catching_up.CatchingUp) -> None:
        await go_on(self)
        turn = next(turns)
        await desk.write(d0=text_of(0, turn), **{f"new{turn}": text_of(100 + turn)})
        desk.live.delete([f"d{turn}"])

    monkeypatch.setattr(catching_up.CatchingUp, "go_on", overtaken)
    sealed.clear()
    assert (await desk.done("reindex", chunk_tokens=96)).state == "succeeded"
    assert sealed.count(True) == 1  # once there was no other way
    last = next(turns) - 1
    expected = {f"d{n}" for n in range(40)} - {f"d{n}" for n in range(1, last + 1)}
    expected |= {f"new{n}" for n in range(1, last + 1)}
    assert {one.id for one in desk.live.revisions()} == expected
    found = desk.live.document("d0")
    assert found is not None
    assert found.text == text_of(0, last)


async def test_what_a_rollback_waits_to_go_back_to_is_not_forgotten(
    tmp_path: Path, embed: Embed
) -> None:
    async with remaking(tmp_path, embed) as desk:
        await fill(desk, 3)
        assert (await desk.done("reindex", chunk_tokens=128, keep_days=1)).state == "succeeded"
    async with remaking(tmp_path, embed, workers=0) as desk:
        (previous,) = [
            one for one in desk.catalog.engines["local"].generations("c") if one.state == "previous"
        ]
        made_at = previous.made_at.isoformat()
        job_id = desk.submit("rollback", engine="local", made_at=made_at)
        later = datetime.now(UTC) + timedelta(days=2)
        desk.keeping.sweep(later)
        assert [state for _, _, state in desk.states()] == ["previous", "live"]
        desk.jobs.cancel(job_id)
        desk.keeping.sweep(later)
        assert [state for _, _, state in desk.states()] == ["live"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_corpus_that_is_deleted_while_a_generation_is_made_stays_deleted(
    desk: Remaking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    build = LocalEngine.build

    def overtaken(engine: LocalEngine, cut: Cut, above: int = 0) -> LocalStore:
        if when == "before":
            desk.catalog.delete("c")
        made = build(engine, cut, above)
        if when == "after":
            desk.catalog.delete("c")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "build", overtaken)
        job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert job.error.code == "corpus_not_found"
    assert desk.states() == []
    _, created = await desk.ingest.create(CorpusSpec("c", chunk_tokens=64, chunk_overlap=0))
    assert created
    await desk.write(d0=text_of(0))
    assert (await desk.done("reindex", chunk_tokens=128)).state == "succeeded"


async def test_a_rollback_that_is_called_off_keeps_the_previous_generation(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await desk.done("reindex", chunk_tokens=128)).state == "succeeded"
    with monkeypatch.context() as broken:
        hold(broken, "proving")
        previous = next(
            one for one in desk.catalog.engines["local"].generations("c") if one.state == "previous"
        )
        made_at = previous.made_at.isoformat()
        job_id = desk.submit("rollback", engine="local", made_at=made_at)
        await until(lambda: desk.jobs.get(job_id).stage == "proving")
        desk.jobs.cancel(job_id)
        await ended(desk.jobs, job_id, 2)
        await until(lambda: [s for _, _, s in desk.states()] == ["live", "previous"], 2)
    assert (await desk.rollback()).state == "succeeded"
    assert desk.live.info.chunk_tokens == 64


async def test_what_is_kept_for_a_rollback_goes_when_its_time_is_over(desk: Remaking) -> None:
    assert (await desk.done("reindex", chunk_tokens=128, keep_days=3)).state == "succeeded"
    now = datetime.now(UTC)
    desk.keeping.sweep(now + timedelta(days=2))
    assert [state for _, _, state in desk.states()] == ["previous", "live"]
    desk.keeping.sweep(now + timedelta(days=4))
    assert desk.states() == [("local", 2, "live")]


async def test_documents_that_come_faster_than_they_are_copied_keep_the_corpus_as_it_is(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "_TURNS", 2)
    monkeypatch.setattr(catching_up.CatchingUp, "_is_little", lambda *_, **__: False)
    job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert "faster than they can be copied" in job.error.message
    assert desk.states() == [("local", 1, "live")]


async def test_a_handful_of_documents_is_proved_with_all_of_them(desk: Remaking) -> None:
    desk.live.delete([f"d{n}" for n in range(2, 40)])
    judged = [{"query": "Entry 1 is told in turn t0n1", "relevant": {"d1": 1}}]
    job = await desk.done("reindex", chunk_tokens=128, judged=judged, margin=0.0)
    assert job.state == "succeeded", job.error
    assert job.result is not None
    assert job.result["ndcg"]["then"] == job.result["ndcg"]["now"] > 0
