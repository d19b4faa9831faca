"""A reindex whose process stood still until another one took its job."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.retrieve.corpus.reindex.catching_up import CatchingUp
from services.retrieve.jobs.leases import Leases
from services.retrieve.jobs.run import Attempt
from shared.errors import ApiError
from tests.ingesting import Embed
from tests.reindexing import text_of
from tests.remaking import Remaking, remaking


@pytest.fixture
async def desk(tmp_path: Path, minilm_dir: Path) -> AsyncIterator[Remaking]:
    embed = Embed((minilm_dir / "tokenizer.json").read_bytes())
    async with remaking(tmp_path, embed) as desk:
        await desk.write(**{f"d{n}": text_of(n) for n in range(5)})
        yield desk


async def test_it_does_not_remove_what_the_other_one_goes_on_with(
    desk: Remaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stale(self: CatchingUp, threads: object) -> bool:
        monkeypatch.setattr(CatchingUp, "end", end)
        leases = Leases(desk.jobs.database)
        (sign,) = await asyncio.to_thread(leases.signs)
        assert await asyncio.to_thread(leases.take, sign, 3)
        assert isinstance(self._run, Attempt)
        self._run._sure_until = float("-inf")
        raise ApiError(507, "storage_full", "the disk is full")

    end = CatchingUp.end
    monkeypatch.setattr(CatchingUp, "end", stale)
    job = await desk.done("reindex", chunk_tokens=128)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert job.result is not None
    assert job.result["copied_documents"] == 5  # none a second time
    assert list(desk.live.verify()) == []
