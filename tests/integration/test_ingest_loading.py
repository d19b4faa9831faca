"""The work of a loading job, on a real catalogue of jobs, with embed well and unwell."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Response

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus import ingest, patience
from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.corpus.load import Loading
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.source import SourceDocument
from services.retrieve.corpus.vectors import reusable
from services.retrieve.jobs.attend import Patience
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Item, Job
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.stores.base import CorpusStore, NewDocument, WriteResult
from services.retrieve.stores.state import RetiredError
from tests.corpora import vector_of
from tests.ingesting import Desk, Embed, open_desk

SOON = Patience(tries=3, pause_s=0.01, max_pause_s=0.05)


@pytest.fixture(scope="session")
def tokenizer(minilm_dir: Path) -> bytes:
    """The default model's tokenizer."""
    return (minilm_dir / "tokenizer.json").read_bytes()


@pytest.fixture
async def desk(tmp_path: Path, tokenizer: bytes) -> AsyncIterator[Desk]:
    """A desk whose embed is well; neighbours of its corpus share no text."""
    async with open_desk(tmp_path, Embed(tokenizer), overlap=0) as desk:
        yield desk


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PAUSES_S", (0.01, 0.02, 0.04))


def items(count: int, text: str = "text of {n}", first: int = 0) -> list[Item]:
    """So many documents d0, d1, … as the lines of a body."""
    return [
        Item(
            n,
            f"line {n + 1}",
            {"kind": "document"},
            json.dumps({"id": f"d{n}", "text": text.format(n=n)}).encode(),
        )
        for n in range(first, first + count)
    ]


@asynccontextmanager
async def jobs_of(desk: Desk, folder: Path) -> AsyncIterator[Jobs]:
    """A catalogue of jobs and a runner that does them for the desk."""
    database = CatalogueDatabase.open("", folder)
    jobs = Jobs(database)
    loading = Loading(desk.ingest, PatientLibrarian(desk.librarian))
    runner = JobRunner(jobs, {"ingest": loading.work}, turn_s=0.2, patience=SOON)
    await runner.start()
    try:
        yield jobs
    finally:
        await runner.close()
        database.close()


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.02)


async def over(jobs: Jobs, job: Job) -> Job:
    """The job once it is over."""
    await until(lambda: jobs.get(job.id).over)
    return jobs.get(job.id)


async def load_items(desk: Desk, folder: Path, sent: Sequence[Item]) -> tuple[Job, Jobs]:
    """Do a job to its end."""
    async with jobs_of(desk, folder) as jobs:
        job, _ = jobs.submit("ingest", "c", {"documents": len(sent)}, "me", items=sent)
        return await over(jobs, job), jobs


def stored(desk: Desk) -> dict[str, str]:
    """The text of every document."""
    store = desk.catalog.get("c")
    found = {one.id: store.document(one.id) for one in store.documents(10_000, None)}
    return {id_: one.text for id_, one in found.items() if one is not None}


async def test_inputs_of_many_documents_share_a_batch(desk: Desk, tmp_path: Path) -> None:
    job, _ = await load_items(desk, tmp_path, items(130))
    assert job.state == "succeeded", job.error
    assert (job.progress.documents, job.verdicts["created"]) == (130, 130)
    sizes = [len(batch) for batch in desk.embed.inputs]
    assert sum(sizes) == 130
    assert len(sizes) <= 6
    assert stored(desk) == {f"d{n}": f"text of {n}" for n in range(130)}
    assert desk.catalog.get("c").info.writes <= 4


async def test_a_job_that_is_begun_again_ends_in_the_same_state(desk: Desk, tmp_path: Path) -> None:
    """Its worker stops after each few groups, stored or not told yet: each time at another."""
    await desk.write(SourceDocument("d299", "older"), SourceDocument("other", "kept"))
    store = desk.catalog.get("c")
    database = CatalogueDatabase.open("", tmp_path)
    jobs = Jobs(database)
    for seed in range(3):
        sent = items(300, f"text of {{n}}, {seed}")
        job, _ = jobs.submit("ingest", "c", {}, "me", items=sent)
        attempts = 0
        while not jobs.get(job.id).over:
            attempts += 1
            writes = store.info.writes
            loading = Loading(desk.ingest, PatientLibrarian(desk.librarian))
            runner = JobRunner(jobs, {"ingest": loading.work}, turn_s=0.2, patience=SOON)
            await runner.start()
            await until(lambda: store.info.writes > writes or jobs.get(job.id).over)  # noqa: B023
            await asyncio.sleep(seed * 0.03)
            await runner.close()
        assert attempts > 1
        assert jobs.get(job.id).state == "succeeded"
        texts = {f"d{n}": f"text of {n}, {seed}" for n in range(300)}
        assert stored(desk) == texts | {"other": "kept"}
        assert jobs.get(job.id).progress.documents == 300
    database.close()


async def test_a_cancelled_job_leaves_what_is_stored(desk: Desk, tmp_path: Path) -> None:
    def slowly(answer: dict[str, Any]) -> Any:
        return SlowResponse(answer)

    class SlowResponse(Response):
        def __init__(self, answer: dict[str, Any]) -> None:
            super().__init__(json.dumps(answer), media_type="application/json")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.1)
            await super().__call__(scope, receive, send)

    desk.embed.spoil = slowly
    async with jobs_of(desk, tmp_path) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me", items=items(320))
        await until(lambda: desk.catalog.get("c").info.documents > 0)
        jobs.cancel(job.id)
        await until(lambda: jobs.get(job.id).over, seconds=2.5)
        assert jobs.get(job.id).state == "cancelled"
        await asyncio.sleep(0.2)
        found = stored(desk)
        assert 0 < len(found) < 320
        assert all(text == f"text of {id_[1:]}" for id_, text in found.items())
        desk.embed.spoil = lambda answer: answer
        again, _ = jobs.submit("ingest", "c", {}, "me", items=items(320))
        assert (await over(jobs, again)).state == "succeeded"
    assert len(stored(desk)) == 320


@pytest.mark.parametrize("status", [429, 503, 504])
async def test_an_embed_that_is_busy_for_a_while_is_waited_for(
    desk: Desk, tmp_path: Path, status: int
) -> None:
    answers = iter([True, True, False, True])

    def busy(answer: dict[str, Any]) -> Any:
        error = {"error": {"message": "busy", "code": "busy"}}
        return Response(json.dumps(error), status) if next(answers, False) else answer

    desk.embed.spoil = busy
    job, _ = await load_items(desk, tmp_path, items(40))
    assert (job.state, job.attempt) == ("succeeded", 1), job.error
    assert len(stored(desk)) == 40


async def test_rubbish_from_embed_fails_the_job_and_nothing_of_it_is_stored(
    desk: Desk, tmp_path: Path
) -> None:
    def nan(answer: dict[str, Any]) -> Any:
        last = answer["data"][-1]
        vector = np.frombuffer(base64.b64decode(last["embedding"]), "<f4").copy()
        vector[0] = np.nan
        last["embedding"] = base64.b64encode(vector.tobytes()).decode()
        return answer

    desk.embed.spoil = nan
    job, _ = await load_items(desk, tmp_path, items(10))
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "bad_upstream"
    assert job.attempt == SOON.tries
    assert stored(desk) == {}


async def test_a_document_that_embed_refuses_fails_alone(desk: Desk, tmp_path: Path) -> None:
    def picky(answer: dict[str, Any]) -> Any:
        if any("d13 " in text or "d57 " in text for text in desk.embed.inputs[-1]):
            error = {"error": {"message": "input 3 is unlucky", "code": "unlucky", "param": None}}
            return Response(json.dumps(error), 422)
        return answer

    desk.embed.spoil = picky
    async with jobs_of(desk, tmp_path) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me", items=items(100, "d{n} here"))
        job = await over(jobs, job)
        assert job.state == "succeeded", job.error
        failed, _ = jobs.verdicts(job.id, "failed")
    assert [(one.id, one.code) for one in failed] == [("d13", "unlucky"), ("d57", "unlucky")]
    assert "unlucky" in str(failed[0].reason)
    assert len(stored(desk)) == 98


async def test_of_a_changed_document_only_new_chunks_are_embedded(desk: Desk) -> None:
    paragraphs = [
        f"Paragraph {n}. " + f"It has some more words of {n} in it. " * 18 for n in range(6)
    ]
    await desk.write(SourceDocument("d", "\n\n".join(paragraphs), "Title"))
    before = desk.catalog.get("c").info.chunks
    sent = [text for batch in desk.embed.inputs for text in batch]
    assert before == len(sent) >= 6
    desk.embed.inputs.clear()
    paragraphs[3] = paragraphs[3].replace("some more", "other")
    await desk.write(SourceDocument("d", "\n\n".join(paragraphs), "Title"))
    again = [text for batch in desk.embed.inputs for text in batch]
    assert again
    assert len(again) < before / 2
    assert not set(again) & set(sent)
    store = desk.catalog.get("c")
    for key in store.keys_of("d"):
        text = store.fetch([key])[key].text
        assert store.vectors([key])[key] == pytest.approx(vector_of(f"Title\n{text}"), abs=1e-5)
    desk.embed.inputs.clear()
    await desk.write(SourceDocument("d", "\n\n".join(paragraphs), "Another title"))
    assert sum(len(batch) for batch in desk.embed.inputs) == before  # each stands behind the title


async def test_vectors_are_found_by_what_they_were_made_of(desk: Desk, tokenizer: bytes) -> None:
    await desk.write(SourceDocument("d", "A text.", "Its title"))
    whole = desk.catalog.get("c").whole(["d"])["d"]
    rows = reusable(whole, TokenCounter(tokenizer), 256)
    assert list(rows) == ["Its title\nA text."]
    assert rows["Its title\nA text."].dense == pytest.approx(
        vector_of("Its title\nA text."), abs=1e-5
    )


class Retiring:
    """A store whose first writes fail as those do that a reindex has overtaken."""

    def __init__(self, store: CorpusStore, times: int) -> None:
        self._store = store
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        self._retire()
        return self._store.write(documents)

    def delete(self, document_ids: Sequence[str]) -> list[str]:
        self._retire()
        return self._store.delete(document_ids)

    def _retire(self) -> None:
        if self.left:
            self.left -= 1
            raise RetiredError


async def test_a_write_that_a_reindex_overtook_is_done_on_the_live_store(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Retiring(desk.catalog.get("c"), 2)
    monkeypatch.setattr(desk.catalog, "get", lambda _: live)
    monkeypatch.setattr(ingest, "_SWAP_PAUSES_S", (0.0, 0.01, 0.01, 0.02))
    assert await desk.write(SourceDocument("d", "text")) == [("d", "created")]
    assert len(desk.embed.inputs) == 1  # the recipe is the same, and so are the vectors
    live.left = 2
    assert await desk.ingest.delete("c", ["d"]) == ["d"]
    live.left = 99
    with pytest.raises(Exception, match="follow each other") as failure:
        await desk.write(SourceDocument("d", "text"))
    assert getattr(failure.value, "status", None) == 503
