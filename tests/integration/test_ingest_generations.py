"""Writes that a swap of generations overtakes, and corpora that an older chunker has cut."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.chunk import CHUNKER, TokenCounter, chunk, embedder_input
from services.retrieve.corpus.load import Loading
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.source import SourceDocument
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Item, LeaseLostError
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.engine import LocalEngine
from tests.corpora import STAMP, vector_of
from tests.ingesting import Desk, Embed, entries, open_desk

OLDER = "semchunk-1"


def paragraphs(about: str = "moss") -> str:
    """Some 600 tokens of prose."""
    return "\n\n".join(
        f"Paragraph {n}. " + " ".join([f"It says a few more words about {about} and {n}."] * 12)
        for n in range(8)
    )


@pytest.fixture(scope="session")
def tokenizer(minilm_dir: Path) -> bytes:
    """The default model's tokenizer."""
    return (minilm_dir / "tokenizer.json").read_bytes()


@pytest.fixture
async def desk(tmp_path: Path, tokenizer: bytes) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path, Embed(tokenizer)) as desk:
        yield desk


def swap(desk: Desk, **changes: Any) -> None:
    """Build a generation, cut otherwise, with whatever is stored (texts alone: one chunk each), and
    make it the live one, as a reindex does."""
    engine, live = desk.catalog.engine("c"), desk.catalog.get("c")
    before = Cut.of(live.info)
    dark = engine.build(replace(before, spec=replace(before.spec, **changes)))
    dark.write(list(live.whole([one.id for one in live.documents(1000, None)]).values()))
    with live.sealed():
        engine.swap("c", datetime.now(UTC) + timedelta(hours=1))
        desk.catalog.reopen("c")


def on_request(desk: Desk, number: int, act: Callable[[], None]) -> None:
    """Have something happen while embed works on its request of that number, counted from 1."""

    def spoil(answer: dict[str, Any]) -> Any:
        if len(desk.embed.inputs) == number:
            act()
        return answer

    desk.embed.spoil = spoil


def check(store: CorpusStore, document_id: str, tokenizer: bytes) -> None:
    """A document is cut as its generation says, and each chunk has the vector of its own text."""
    info, found = store.info, store.document(document_id)
    assert found is not None
    counter = TokenCounter(tokenizer)
    expected = chunk(
        found.text,
        found.title,
        found.outline,
        counter,
        info.chunk_tokens,
        info.chunk_overlap,
        info.chunker,
    )
    chunks = store.fetch(store.keys_of(document_id))
    assert sorted(one.text for one in chunks.values()) == sorted(one.text for one in expected)
    vectors = store.vectors(list(chunks))
    for key, one in chunks.items():
        seen = embedder_input(found.title, one, counter, info.chunk_tokens)
        assert vectors[key] == pytest.approx(vector_of(seen), abs=1e-5)


async def test_a_write_that_a_swap_overtakes_is_made_anew_as_the_new_generation_is_cut(
    desk: Desk, tokenizer: bytes
) -> None:
    assert await desk.write(SourceDocument("before", "stored already")) == [("before", "created")]
    on_request(desk, 2, lambda: swap(desk, chunk_tokens=64, chunk_overlap=8))
    assert await desk.write(SourceDocument("d", paragraphs())) == [("d", "created")]
    store = desk.catalog.get("c")
    assert (store.info.chunk_tokens, store.info.generation) == (64, 2)
    assert store.info.documents == 2
    check(store, "d", tokenizer)
    check(store, "before", tokenizer)
    assert len(desk.embed.inputs) >= 3  # what the old recipe made was of no use


async def test_a_write_into_a_generation_that_was_retired_reaches_the_live_one(
    desk: Desk, tokenizer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    retired, get = desk.catalog.get("c"), desk.catalog.get
    swap(desk, chunk_tokens=256)
    asked = iter([retired] * 3)
    monkeypatch.setattr(desk.catalog, "get", lambda name: next(asked, None) or get(name))
    assert await desk.write(SourceDocument("d", paragraphs())) == [("d", "created")]
    assert next(asked, None) is None
    assert len(desk.embed.inputs) == 1  # cut alike: nothing is made twice
    store = get("c")
    assert (store.info.generation, store.info.documents) == (2, 1)
    check(store, "d", tokenizer)
    asked = iter([retired])
    assert await desk.ingest.delete("c", ["d"]) == ["d"]
    assert store.info.documents == 0


@asynccontextmanager
async def jobs_of(desk: Desk, folder: Path) -> AsyncIterator[Jobs]:
    """A catalogue of jobs and a runner that does them for the desk."""
    with closing(CatalogueDatabase.open("", folder)) as database:
        jobs = Jobs(database)
        loading = Loading(desk.ingest, PatientLibrarian(desk.librarian))
        runner = JobRunner(jobs, {"ingest": loading.work}, turn_s=0.2)
        await runner.start()
        try:
            yield jobs
        finally:
            await runner.close()


@pytest.mark.parametrize("at", [1, 2, 4])
async def test_a_job_that_swaps_overtake_stores_every_document_as_the_live_one_is_cut(
    desk: Desk, tmp_path: Path, tokenizer: bytes, at: int
) -> None:
    on_request(desk, at, lambda: swap(desk, chunk_tokens=64, chunk_overlap=8))
    items = [
        Item(
            n,
            f"line {n + 1}",
            {"kind": "document"},
            json.dumps({"id": f"d{n}", "text": paragraphs(f"{n} stones")}).encode(),
        )
        for n in range(40)
    ]
    async with jobs_of(desk, tmp_path) as jobs:
        job, _ = jobs.submit("ingest", "c", {}, "me", items=items)
        async with asyncio.timeout(60):
            while not jobs.get(job.id).over:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
        job = jobs.get(job.id)
    assert job.state == "succeeded", job.error
    assert job.verdicts["failed"] == 0
    store = desk.catalog.get("c")
    assert (store.info.generation, store.info.documents) == (2, 40)
    for number in range(40):
        found = store.document(f"d{number}")
        assert found is not None
        assert found.text == paragraphs(f"{number} stones")
    check(store, "d39", tokenizer)


async def test_who_may_not_write_any_more_is_found_out_just_before_the_write(desk: Desk) -> None:
    may = True

    async def assure() -> None:
        if not may:
            raise LeaseLostError

    sent = entries(SourceDocument("d", "stored by another meanwhile"))
    async with desk.ingest._writing.setdefault("c", asyncio.Lock()):
        writing = asyncio.create_task(desk.ingest.written("c", sent, assure=assure))
        async with asyncio.timeout(30):
            while not desk.embed.inputs:  # noqa: ASYNC110 - embed has no event
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        may = False
    with pytest.raises(LeaseLostError):
        await writing
    assert desk.catalog.get("c").info.documents == 0


async def test_a_corpus_of_an_older_chunker_goes_on_with_it(
    tmp_path: Path, tokenizer: bytes
) -> None:
    assert OLDER != CHUNKER
    engine = LocalEngine.at(tmp_path / "corpora")
    engine.create(Cut(CorpusSpec("c", chunk_tokens=64, chunk_overlap=8), STAMP, OLDER)).close()
    engine.close()
    text = "\n\n".join(f"# Moss {n}\n\nIt grows on stone {n}, slowly." for n in range(20))
    moss = SourceDocument("d", text, format="markdown")
    async with open_desk(tmp_path, Embed(tokenizer), 8, 64) as desk:
        assert await desk.write(moss) == [("d", "created")]
        store = desk.catalog.get("c")
        assert store.info.chunker == OLDER
        check(store, "d", tokenizer)
        found = store.document("d")
        assert found is not None
        counter = TokenCounter(tokenizer)
        now = chunk(found.text, found.title, found.outline, counter, 64, 8, CHUNKER)
        assert {one.text for one in now} != {
            one.text for one in store.fetch(store.keys_of("d")).values()
        }  # the two cut it otherwise
        assert await desk.write(moss) == [("d", "unchanged")]
