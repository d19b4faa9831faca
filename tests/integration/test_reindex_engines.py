"""Corpora that move between engines, there and back."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.local.engine import LocalEngine
from shared.errors import ApiError
from tests.ingesting import Embed
from tests.qdrant import memory_link
from tests.reindexing import text_of
from tests.remaking import Remaking, remaking
from tests.works import ended, until


@pytest.fixture
async def desk(tmp_path: Path, minilm_dir: Path) -> AsyncIterator[Remaking]:
    embed = Embed((minilm_dir / "tokenizer.json").read_bytes())
    async with remaking(tmp_path, embed, memory_link()) as desk:
        yield desk


def found(store: CorpusStore, query: str) -> list[str]:
    keys = [key for key, _ in store.bm25(query, 5)]
    return [one.document_id for one in store.fetch(keys).values()]


def agree(one: CorpusStore, other: CorpusStore, ids: list[str]) -> None:
    """Both hold the same documents, chunks and vectors."""
    left, right = one.whole(ids), other.whole(ids)
    assert sorted(left) == sorted(right) == sorted(ids)
    for id_ in ids:
        a, b = left[id_], right[id_]
        assert (a.text, a.chunks, a.content_hash, a.version, a.updated_at) == (
            b.text,
            b.chunks,
            b.content_hash,
            b.version,
            b.updated_at,
        )
        assert np.allclose(a.vectors, b.vectors, atol=1e-6)


async def test_a_corpus_moves_to_qdrant_and_back_with_vectors_and_chunks_as_they_are(
    desk: Remaking,
) -> None:
    ids = [f"d{n}" for n in range(12)]
    await desk.write(**{id_: text_of(n, sentences=30) for n, id_ in enumerate(ids)})
    before = desk.live
    embedded = len(desk.embed.inputs)
    job = await desk.done("migrate", engine="qdrant")
    assert job.state == "succeeded", job.error
    assert (desk.live.info.engine, desk.live.info.generation) == ("qdrant", 2)
    assert desk.states() == [("local", 1, "previous"), ("qdrant", 2, "live")]
    assert len(desk.embed.inputs) == embedded  # nothing was embedded anew
    agree(before, desk.live, ids)
    assert list(desk.live.verify()) == []
    for n, id_ in enumerate(ids):
        assert found(desk.live, f"t0n{n}") == found(before, f"t0n{n}") == [id_]
    await desk.write(d1=text_of(1, turn=1), new=text_of(50))
    desk.live.delete(["d2"])
    job = await desk.done("migrate", engine="local")
    assert job.state == "succeeded", job.error
    assert desk.states() == [("local", 3, "live"), ("qdrant", 2, "previous")]
    assert found(desk.live, "t1n1") == ["d1"]
    assert sorted(one.id for one in desk.live.revisions()) == sorted({*ids, "new"} - {"d2"})
    assert desk.live.info.dimension == before.info.dimension


async def test_a_rollback_leads_back_over_the_border_of_engines(desk: Remaking) -> None:
    await desk.write(a=text_of(1), b=text_of(2), c=text_of(3))
    assert (await desk.done("migrate", engine="qdrant")).state == "succeeded"
    await desk.write(b=text_of(2, turn=1), d=text_of(4))
    desk.live.delete(["c"])
    job = await desk.rollback()
    assert job.state == "succeeded", job.error
    assert desk.live.info.engine == "local"
    assert desk.live.info.generation == 3
    assert desk.states() == [("local", 3, "live"), ("qdrant", 2, "previous")]
    assert [one.id for one in desk.live.revisions()] == ["a", "b", "d"]
    assert found(desk.live, "t1n2") == ["b"]
    job = await desk.rollback()
    assert job.state == "succeeded", job.error
    assert job.result is not None
    assert job.result["copied_documents"] == 0
    assert (desk.live.info.engine, desk.live.info.generation) == ("qdrant", 4)


async def test_what_is_left_in_the_other_engine_goes_when_its_time_is_over(desk: Remaking) -> None:
    await desk.write(a=text_of(1))
    assert (await desk.done("migrate", engine="qdrant", keep_days=1)).state == "succeeded"
    desk.keeping.sweep(datetime.now(UTC))
    assert len(desk.states()) == 2
    desk.keeping.sweep(datetime.now(UTC) + timedelta(days=2))
    assert desk.states() == [("qdrant", 2, "live")]


async def test_a_corpus_may_be_cut_anew_on_its_way_to_another_engine(desk: Remaking) -> None:
    await desk.write(a=text_of(1, sentences=40), b=text_of(2, sentences=40))
    chunks = desk.live.info.chunks
    job = await desk.done("reindex", engine="qdrant", chunk_tokens=128, language="de")
    assert job.state == "succeeded", job.error
    info = desk.live.info
    assert (info.engine, info.chunk_tokens, info.language) == ("qdrant", 128, "de")
    assert info.chunks < chunks


async def test_a_move_that_breaks_off_in_the_middle_is_undone(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ApiError(507, "storage_full", "the disk is full")

    await desk.write(a=text_of(1), b=text_of(2))
    with monkeypatch.context() as full:
        full.setattr(LocalEngine, "step_down", broken)
        job = await desk.done("migrate", engine="qdrant")
    assert job.error is not None
    assert job.error.code == "reindex_refused"
    assert "the disk is full" in job.error.message
    assert desk.states() == [("local", 1, "live")]
    await desk.write(b=text_of(2, turn=1))
    assert (await desk.done("migrate", engine="qdrant")).state == "succeeded"
    assert found(desk.live, "t1n2") == ["b"]


@pytest.mark.parametrize("kind", ["migrate", "rollback"])
async def test_what_could_not_even_be_undone_takes_no_write_back(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await desk.write(a=text_of(1))
    if kind == "rollback":
        assert (await desk.done("migrate", engine="qdrant")).state == "succeeded"

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("nobody answers")

    with monkeypatch.context() as cut_off:
        cut_off.setattr("services.retrieve.corpus.reindex.swapping._undo", broken)
        cut_off.setattr("services.retrieve.corpus.reindex.swapping._fault", lambda *_: "it is gone")
        request = await asked(desk, kind)
        job_id = desk.submit(kind, **request)
        await until(lambda: desk.jobs.get(job_id).error is not None)
        await desk.write(b=text_of(2, turn=1))
    await ended(desk.jobs, job_id)
    await desk.write(c=text_of(3))
    assert [one.id for one in desk.live.revisions()] == ["a", "b", "c"]


async def asked(desk: Remaking, kind: str) -> dict[str, str]:
    if kind == "migrate":
        return {"engine": "qdrant"}
    (previous,) = (
        one for one in desk.catalog.engines["local"].generations("c") if one.state == "previous"
    )
    return {"engine": "local", "made_at": previous.made_at.isoformat()}


async def test_a_revived_generation_can_be_put_back_in_either_engine(desk: Remaking) -> None:
    await desk.write(a=text_of(1))
    for kind in ("local", "qdrant"):
        engine = desk.catalog.engine_named(kind)
        if kind == "qdrant":
            assert (await desk.done("migrate", engine="qdrant")).state == "succeeded"
        assert (await desk.done("reindex", force=True)).state == "succeeded"
        before = desk.live.info.generation
        assert engine.revive("c", 100).info.generation > 100
        engine.shelve("c", datetime.now(UTC) + timedelta(days=1))
        states = sorted((one.state, one.documents) for one in engine.generations("c"))
        assert states == [("live", 1), ("previous", 1)]
        assert desk.live.info.generation == before
        engine.shelve("c", datetime.now(UTC))  # there is none: no harm
        assert len(engine.generations("c")) == 2
        desk.catalog.reopen("c")
