"""A desk in this process whose corpora are remade by jobs, with an embed that can misbehave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.reindex import catching_up
from services.retrieve.corpus.reindex.keeping import Keeping
from services.retrieve.corpus.reindex.work import Reindex
from services.retrieve.corpus.source import SourceDocument
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.jobs.attend import Patience
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Job
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.search.curator import Curator
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec, EngineName
from services.retrieve.stores.engine import Engine
from services.retrieve.stores.local.engine import LocalEngine
from services.retrieve.stores.qdrant.engine import QdrantEngine
from services.retrieve.stores.qdrant.link import Link
from shared.client import ServiceClient
from shared.settings import Settings
from tests.ingesting import Embed, entries
from tests.reindexing import text_of
from tests.suite import serving
from tests.works import ended

SOON = Patience(tries=4, pause_s=0.01, max_pause_s=0.05)


@dataclass
class Remaking:
    """A catalog with corpus "c", and jobs over it."""

    catalog: Catalog
    ingest: Ingest
    jobs: Jobs
    embed: Embed
    keeping: Keeping

    @property
    def live(self) -> CorpusStore:
        """The store that is served."""
        return self.catalog.get("c")

    async def write(self, **texts: str) -> None:
        """Store texts by id."""
        sent = [SourceDocument(id_, text) for id_, text in texts.items()]
        await self.ingest.write("c", entries(*sent))

    def submit(self, kind: str, **request: Any) -> str:
        """A job's id."""
        return self.jobs.submit(kind, "c", request, "tester")[0].id

    async def done(self, kind: str, **request: Any) -> Job:
        """A job that is over."""
        return await ended(self.jobs, self.submit(kind, **request), 60)

    async def rollback(self) -> Job:
        """To the previous generation of whichever engine had the last one."""
        kept = [
            (one.number, kind, one.made_at)
            for kind, engine in self.catalog.engines.items()
            for one in engine.generations("c")
            if one.state == "previous"
        ]
        _, kind, made_at = max(kept)
        return await self.done("rollback", engine=kind, made_at=made_at.isoformat())

    def states(self) -> list[tuple[EngineName, int, str]]:
        """Engine, number and state of all generations."""
        return sorted(
            (kind, one.number, one.state)
            for kind, engine in self.catalog.engines.items()
            for one in engine.generations("c")
        )


@asynccontextmanager
async def remaking(
    folder: Path, embed: Embed, link: Link | None = None, **more: Any
) -> AsyncIterator[Remaking]:
    """A desk over a folder, and over a Qdrant if there is one; corpus "c" is made if it is not
    there. more: for the job runner."""
    database = CatalogueDatabase.open("", folder)
    engines: dict[EngineName, Engine] = {"local": LocalEngine.at(folder / "corpora")}
    if link is not None:
        engines["qdrant"] = QdrantEngine(database, link, patience_s=5.0)
    catalog = Catalog(engines, "local")
    jobs = Jobs(database)
    async with serving(embed.app()) as url:
        client = ServiceClient("embed", url, settings=Settings())
        librarian = Librarian(client)
        staff = Staff(librarian, Curator(client), Tokenizers(folder), None)
        preparation = Preparation(librarian, None, folder / "tokenizers")
        ingest = Ingest(catalog, librarian, None, preparation)
        if not catalog.list():
            await ingest.create(CorpusSpec("c", chunk_tokens=64, chunk_overlap=0))
        reindex = Reindex(catalog, staff, PatientLibrarian(librarian), preparation)
        works = {
            "reindex": reindex.reindex,
            "migrate": reindex.reindex,
            "rollback": reindex.rollback,
        }
        more.setdefault("patience", SOON)
        more.setdefault("turn_s", 0.2)
        runner = JobRunner(jobs, works, **more)
        await runner.start()
        try:
            yield Remaking(catalog, ingest, jobs, embed, Keeping(catalog, jobs))
        finally:
            await runner.close()
            await client.close()
            for store in catalog.stores():
                store.close()
            engines["local"].close()  # the Qdrant in memory is the test's
            database.close()


async def fill(desk: Remaking, count: int = 40) -> None:
    """Write so many documents."""
    await desk.write(**{f"d{n}": text_of(n) for n in range(count)})


def served(desk: Remaking) -> tuple[int, int, int]:
    """Number, tokens per chunk and documents of the live generation."""
    info = desk.live.info
    return info.generation, info.chunk_tokens, info.documents


def hold(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Let jobs come no further than into this stage."""

    async def for_ever(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    if stage == "building":
        monkeypatch.setattr("services.retrieve.corpus.reindex.copying.Copier.make", for_ever)
    elif stage == "proving":
        monkeypatch.setattr("services.retrieve.corpus.reindex.work.require_sound", for_ever)
    else:
        monkeypatch.setattr(catching_up.CatchingUp, "end", for_ever)
