"""The desk as an app: what it works with, put together, and its routes."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from services.retrieve import surfaces
from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.load import Loading
from services.retrieve.corpus.opening import open_corpora
from services.retrieve.corpus.parsing.workers import Workers
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.reindex.keeping import Keeping
from services.retrieve.corpus.reindex.work import Reindex
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.desk import Desk
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.runner import JobRunner
from services.retrieve.jobs.watch import JobWatch
from services.retrieve.protocol import (
    RetrieveRequest,
    RetrieveResponse,
    WhyNotRequest,
    WhyNotResponse,
)
from services.retrieve.routes import corpora, documents, transfer
from services.retrieve.routes import ingest as ingest_route
from services.retrieve.routes import jobs as job_routes
from services.retrieve.routes import reindex as reindex_routes
from services.retrieve.search.assistant import Assistant
from services.retrieve.search.curator import Curator
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import rebuilding
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.service import create_service
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

_ANSWERS = "answers"
# Routes that read bodies as they come.
_UPLOAD, _RESTORE = (re.compile(f"/corpora/[^/]+/{name}") for name in ("ingest", "restore"))


async def build(settings: Settings) -> FastAPI:
    """Open the corpora, make the app. Raises StartupError where the data folder can't be used."""
    catalog, database = await asyncio.to_thread(open_corpora, settings)
    return create_app(settings, catalog, database)


def create_app(settings: Settings, catalog: Catalog, database: CatalogueDatabase) -> FastAPI:
    """The app over open corpora and the catalogue's database; it closes them at the end."""
    embed = ServiceClient("embed", settings.url("embed"), settings=settings)
    rerank = ServiceClient("rerank", settings.url("rerank"), settings=settings)
    librarian, curator = Librarian(embed), Curator(rerank)
    assistant = Assistant.of(settings)
    tokenizers = Tokenizers(settings.models_dir)
    staff = Staff(librarian, curator, tokenizers, assistant)
    fill = TokenFill(rerank) if settings.rerank_fill_at_ingest else None
    workers = Workers(settings.parse_workers, settings.parse_memory_mb)
    preparation = Preparation(
        librarian, workers, settings.built_dir / "tokenizers", settings.parse_seconds
    )
    ingest = Ingest(catalog, librarian, fill, preparation)
    jobs = Jobs(database, waiting_mb=settings.jobs_waiting_mb)
    patient = PatientLibrarian(librarian)
    reindex = Reindex(catalog, staff, patient, preparation)
    works = {
        ingest_route.KIND: Loading(ingest, patient).work,
        "reindex": reindex.reindex,
        "migrate": reindex.reindex,
        "rollback": reindex.rollback,
    }
    runner = JobRunner(
        jobs, works, workers=settings.job_workers, history_days=settings.job_history_days
    )
    keeping = Keeping(catalog, jobs)
    watch = JobWatch(jobs)

    async def start() -> None:
        await runner.start()
        keeping.start()

    def shown(name: str, state: str) -> str:
        if settings.keys_file is None or state == _ANSWERS:
            return state
        # /ready asks for no key, and the reason may name addresses and files.
        log.warning("dependency_fails", dependency=name, reason=state)
        return "does not answer: see the log"

    async def probe() -> dict[str, Any]:
        stores = catalog.stores()
        lost = await asyncio.to_thread(_prove, stores)
        # Proves that embed answers, whatever corpora there are.
        other = await librarian.unserved([store.info for store in stores])
        try:
            await curator.ask()
            rerank_state = _ANSWERS
        except ApiError as error:  # searches go on without it, and say so
            rerank_state = error.message
        damaged = catalog.damaged | lost
        # With keys /ready still asks for none, so that it must not tell everyone what there is.
        may_read = current().principal.may_read
        return {
            "corpora": len(stores) - len(lost),
            "damaged": len(damaged),
            "of_another_model": len(other),
            "faults": {name: why for name, why in (damaged | other).items() if may_read(name)},
            "rebuilding": {
                store.info.name: rebuilding(store)
                for store in stores
                if rebuilding(store) and may_read(store.info.name)
            },
            "dependencies": {
                "embed": _ANSWERS,
                "rerank": shown("rerank", rerank_state),
                # Searches go on without it, too; where the corpora are in it they have failed.
                "catalogue": shown("catalogue", runner.catalogue()),
            },
        }

    async def close() -> None:
        await watch.close()
        await keeping.close()
        await runner.close()  # what works with the rest, before the rest
        await workers.close()
        if fill is not None:
            await fill.close()
        await asyncio.to_thread(catalog.close)
        await asyncio.to_thread(database.close)
        await embed.close()
        await rerank.close()
        if assistant is not None:
            await assistant.close()

    app = create_service(
        "retrieve",
        settings,
        probe=probe,
        start=start,
        close=close,
        error_shapes=surfaces.ERROR_SHAPES,
        uploads={
            _UPLOAD: settings.max_upload_mb << 20,
            _RESTORE: settings.max_restore_mb << 20,
        },
    )
    desk = Desk(catalog, staff, ExactArm())
    corpora.add_routes(app, settings, desk, catalog, ingest)
    documents.add_routes(app, desk, ingest)
    ingest_route.add_routes(app, settings, ingest, jobs)
    job_routes.add_routes(app, jobs, watch)
    reindex_routes.add_routes(app, settings, catalog, jobs, librarian, preparation)
    transfer.add_routes(app, settings, desk, catalog, librarian)

    @app.post("/retrieve", response_model=RetrieveResponse)
    async def retrieve(request: RetrieveRequest) -> Response:
        """The passages that answer a question, best first, with why and with what was left out."""
        found = await desk.retrieve(request)
        # Encoded here: the framework would validate the whole answer a second time.
        return Response(found.model_dump_json(exclude_none=False), media_type="application/json")

    @app.post("/retrieve/why-not")
    async def explain_absence(request: WhyNotRequest) -> WhyNotResponse:
        """How far a document came in a search, chunk by chunk, and why it is not among the hits."""
        return await desk.why_not(request)

    surfaces.add_routes(app, desk)
    return app


def _prove(stores: Sequence[CorpusStore]) -> dict[str, str]:
    """Search every corpus with all its arms; those that are found damaged, and what to do. They
    keep no other from being served. Raises what else a search of one would raise."""
    damaged = {}
    for store in stores:
        try:
            _search(store)
        except ApiError as error:
            if error.code != "corpus_damaged":
                raise
            damaged[store.info.name] = error.message
    return damaged


def _search(store: CorpusStore) -> None:
    if "bm25" not in rebuilding(store):
        store.bm25("ready", 1)
    probe = np.zeros(store.info.dimension, dtype=np.float32)
    probe[0] = 1.0
    store.dense(probe, 1)
    if store.info.sparse:
        store.sparse(Sparse(np.zeros(1, np.int32), np.ones(1, np.float32)), 1)
