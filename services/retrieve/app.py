"""The desk as an app: what it works with, put together, and its routes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from services.retrieve import surfaces
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian, model_mismatch
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.desk import Desk
from services.retrieve.protocol import (
    RetrieveRequest,
    RetrieveResponse,
    WhyNotRequest,
    WhyNotResponse,
)
from services.retrieve.routes import corpora, documents
from services.retrieve.search.assistant import Assistant
from services.retrieve.search.curator import Curator
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.sparse_vector import Sparse
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.service import create_service
from shared.settings import Settings


async def build(settings: Settings) -> FastAPI:
    """Open the corpora, make the app. Raises StartupError where the data folder can't be used."""
    catalog = await asyncio.to_thread(Catalog.open, settings.corpora_dir, settings.dense_device)
    return create_app(settings, catalog)


def create_app(settings: Settings, catalog: Catalog) -> FastAPI:
    """The app over open corpora; it closes them at the end."""
    embed = ServiceClient("embed", settings.url("embed"), settings=settings)
    rerank = ServiceClient("rerank", settings.url("rerank"), settings=settings)
    librarian, curator = Librarian(embed), Curator(rerank)
    assistant = Assistant.of(settings)
    tokenizers = Tokenizers(settings.models_dir)
    staff = Staff(librarian, curator, tokenizers, assistant)
    fill = TokenFill(rerank) if settings.rerank_fill_at_ingest else None
    ingest = Ingest(catalog, librarian, fill)

    async def probe() -> dict[str, Any]:
        stores = catalog.stores()
        await asyncio.to_thread(_prove, stores)
        served = (await librarian.served()).stamp
        try:
            await curator.ask()
            rerank_state = "answers"
        except ApiError as error:  # searches go on without it, and say so
            rerank_state = error.message
        damaged = catalog.damaged
        other = {
            store.info.name: model_mismatch(store.info, served).message
            for store in stores
            if store.info.stamp != served
        }
        # With keys /ready still asks for none, so that it must not tell everyone what there is.
        may_read = current().principal.may_read
        return {
            "corpora": len(stores),
            "damaged": len(damaged),
            "of_another_model": len(other),
            "faults": {name: why for name, why in (damaged | other).items() if may_read(name)},
            "dependencies": {"embed": "answers", "rerank": rerank_state},
        }

    async def close() -> None:
        if fill is not None:
            await fill.close()
        await asyncio.to_thread(catalog.close)
        await embed.close()
        await rerank.close()
        if assistant is not None:
            await assistant.close()

    app = create_service(
        "retrieve", settings, probe=probe, close=close, error_shapes=surfaces.ERROR_SHAPES
    )
    desk = Desk(catalog, staff, ExactArm())
    corpora.add_routes(app, settings, desk, catalog, ingest)
    documents.add_routes(app, desk, ingest)

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


def _prove(stores: Sequence[CorpusStore]) -> None:
    """Search every corpus with all its arms. Raises what a search of it would raise."""
    for store in stores:
        store.bm25("ready", 1)
        probe = np.zeros(store.info.dimension, dtype=np.float32)
        probe[0] = 1.0
        store.dense(probe, 1)
        if store.info.sparse:
            store.sparse(Sparse(np.zeros(1, np.int32), np.ones(1, np.float32)), 1)
