"""Reindexing when something goes wrong on its way: embed, the disk, a cancel, the process."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse, StreamingResponse

from services.retrieve.corpus import patience
from services.retrieve.jobs.attend import Patience
from services.retrieve.stores.corpus import ModelStamp
from shared.errors import ApiError
from tests.corpora import DIMENSION
from tests.ingesting import Embed
from tests.reindexing import text_of
from tests.remaking import Remaking, fill, hold, remaking, served
from tests.works import ended, until

NEW = ModelStamp("new-model", "1111aaaa-fp32", DIMENSION)


STAGES = ("building", "proving", "swapping")


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


def sometimes(fault: Any, times: int) -> Callable[[dict[str, Any]], Any]:
    """The fault so many times, and then what is right."""
    calls = itertools.count()
    return lambda answer: fault if next(calls) < times else answer


async def test_a_busy_embed_is_waited_for(desk: Remaking) -> None:
    busy = JSONResponse(
        {"error": {"message": "busy", "type": "overloaded_error", "param": None, "code": "busy"}},
        429,
        {"retry-after": "0"},
    )
    desk.embed.spoil = sometimes(busy, 2)
    job = await desk.done("reindex", chunk_tokens=128)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert served(desk) == (2, 128, 40)


async def test_an_embed_that_hangs_is_asked_again(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(3600)

    monkeypatch.setattr(patience, "_EMBED_MS", 200.0)
    desk.embed.spoil = sometimes(StreamingResponse(never()), 1)
    job = await desk.done("reindex", chunk_tokens=128)
    assert (job.state, served(desk)) == ("succeeded", (2, 128, 40))


async def test_rubbish_from_embed_is_not_stored_and_asked_for_again(desk: Remaking) -> None:
    desk.embed.spoil = sometimes({"object": "list", "data": []}, 2)
    job = await desk.done("reindex", chunk_tokens=128)
    assert (job.state, served(desk)) == ("succeeded", (2, 128, 40))
    assert job.attempt > 1
    assert list(desk.live.verify()) == []


async def test_an_embed_that_stays_bad_ends_the_job_and_what_it_left_goes(desk: Remaking) -> None:
    desk.embed.spoil = lambda _: {"object": "list", "data": []}
    job = await desk.done("reindex", chunk_tokens=128)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "bad_upstream"
    assert served(desk) == (1, 64, 40)
    desk.keeping.sweep(datetime.now(UTC))
    assert desk.states() == [("local", 1, "live")]


async def test_another_model_is_embedded_anew_and_a_rollback_needs_none_of_it(
    desk: Remaking,
) -> None:
    before = len(desk.embed.inputs)
    desk.embed.stamp = NEW
    job = await desk.done("reindex", embedder="")
    assert job.state == "succeeded", job.error
    assert desk.live.info.stamp == NEW
    assert len(desk.embed.inputs) > before
    assert job.result is not None
    assert job.result["reused_vectors"] == 0
    made = len(desk.embed.inputs)
    desk.embed.spoil = lambda _: {"object": "list", "data": []}
    assert (await desk.rollback()).state == "succeeded"
    assert (served(desk), len(desk.embed.inputs)) == ((3, 64, 40), made)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancel_in_any_stage_leaves_the_live_generation_alone(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    hold(monkeypatch, stage)
    job_id = desk.submit("reindex", chunk_tokens=128)
    await until(lambda: desk.jobs.get(job_id).stage == stage)
    await asyncio.sleep(0.1)
    desk.jobs.cancel(job_id)
    job = await ended(desk.jobs, job_id, 2)
    assert job.state == "cancelled"
    await until(lambda: desk.states() == [("local", 1, "live")], 2)
    await desk.write(d0=text_of(0, turn=1))  # no seal is left
    assert served(desk) == (1, 64, 40)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_process_that_stops_in_any_stage_leaves_work_that_is_gone_on_with(
    tmp_path: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with monkeypatch.context() as held:
        async with remaking(tmp_path, embed) as desk:
            await fill(desk)
            hold(held, stage)
            job_id = desk.submit("reindex", chunk_tokens=128)
            await until(lambda: desk.jobs.get(job_id).stage == stage)
            await asyncio.sleep(0.1)
    embedded = sum(len(texts) for texts in embed.inputs)
    async with remaking(tmp_path, embed) as desk:
        job = await ended(desk.jobs, job_id)
        assert job.state == "succeeded", job.error
        assert (served(desk), job.attempt) == ((2, 128, 40), 2)
        again = sum(len(texts) for texts in embed.inputs) - embedded
        assert again < desk.live.info.chunks or stage == "building"
        if stage != "building":
            assert again == 0  # nothing that was done is done again
        assert [state for _, _, state in desk.states()] == ["previous", "live"]


async def test_a_process_that_stops_just_after_the_swap_does_not_begin_anew(
    tmp_path: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise ConnectionError("as if the process were no more")

    with monkeypatch.context() as held:
        held.setattr("services.retrieve.corpus.reindex.work.reopened", dies)
        async with remaking(tmp_path, embed, patience=Patience(pause_s=0.5)) as desk:
            await fill(desk)
            job_id = desk.submit("reindex", chunk_tokens=128)
            await until(lambda: desk.jobs.get(job_id).error is not None)
    gc.collect()  # what a process holds goes with it: here the locks of its stores
    async with remaking(tmp_path, embed) as desk:
        job = await ended(desk.jobs, job_id)
        assert job.state == "succeeded", job.error
        assert served(desk) == (2, 128, 40)
        assert [state for _, _, state in desk.states()] == ["previous", "live"]
        await desk.write(d0=text_of(0, turn=1))


async def test_an_embed_that_changes_its_revision_in_mid_run_leaves_the_corpus_as_it_is(
    desk: Remaking,
) -> None:
    desk.embed.stamp = NEW

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        desk.embed.stamp = replace(NEW, revision="2222bbbb-fp32")
        return answer

    desk.embed.spoil = change
    job = await desk.done("reindex", embedder="")
    assert job.error is not None
    assert job.error.code == "reindex_refused"
    assert "embed no longer serves new-model 1111aaaa-fp32" in job.error.message
    assert (served(desk), desk.states()) == ((1, 64, 40), [("local", 1, "live")])


async def test_a_disk_that_fills_up_ends_the_job_and_frees_what_it_took(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ApiError(507, "storage_full", "the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("services.retrieve.stores.local.store.LocalStore.write", full)
        job = await desk.done("reindex", chunk_tokens=128)
    assert job.error is not None
    assert job.error.code == "storage_full"
    assert (served(desk), desk.states()) == ((1, 64, 40), [("local", 1, "live")])
