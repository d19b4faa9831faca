"""The desk's HTTP: routes that translate, and nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Response

from services.retrieve import surfaces
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian, model_mismatch
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.ingest import Ingest, SourceDocument
from services.retrieve.corpus.protocol import (
    Corpus,
    CorpusList,
    CorpusSettings,
    DocumentBatch,
    DocumentBody,
    DocumentPage,
    IngestResponse,
)
from services.retrieve.corpus.tokenizers import Tokenizers
from services.retrieve.desk import Desk, no_document
from services.retrieve.protocol import (
    RetrieveRequest,
    RetrieveResponse,
    WhyNotRequest,
    WhyNotResponse,
)
from services.retrieve.search.assistant import Assistant
from services.retrieve.search.curator import Curator
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import CorpusInfo, CorpusSpec, CorpusStore
from services.retrieve.stores.sparse_vector import Sparse
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.service import create_service
from shared.settings import Settings

CorpusName = Annotated[str, Path(max_length=256)]
DocumentId = Annotated[str, Path(max_length=512)]


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
    _corpus_routes(app, settings, desk, catalog, ingest)
    _document_routes(app, desk, ingest)

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


def _corpus_routes(
    app: FastAPI, settings: Settings, desk: Desk, catalog: Catalog, ingest: Ingest
) -> None:
    @app.get("/corpora")
    async def list_corpora() -> CorpusList:
        """The corpora that the caller may read, by name."""
        return CorpusList(corpora=[_corpus(info) for info in desk.corpora()])

    @app.put("/corpora/{name}", status_code=201, responses={200: {"model": Corpus}})
    async def put_corpus(
        name: CorpusName, response: Response, body: CorpusSettings | None = None
    ) -> Corpus:
        """Make a corpus; 200 where it was there with these settings, 409 with others."""
        current().principal.require_write(name)
        wanted = body or CorpusSettings()
        spec = CorpusSpec(
            name=name,
            description=wanted.description,
            language=wanted.language,
            chunk_tokens=_default(wanted.chunk_tokens, settings.chunk_tokens),
            chunk_overlap=_default(wanted.chunk_overlap, settings.chunk_overlap),
            curate=wanted.curate,
        )
        info, created = await ingest.create(spec)
        response.status_code = 201 if created else 200
        return _corpus(info)

    @app.get("/corpora/{name}")
    async def get_corpus(name: CorpusName) -> Corpus:
        """One corpus: settings, stamp, counts."""
        return _corpus(desk.corpus(name))

    @app.delete("/corpora/{name}", status_code=204)
    async def delete_corpus(name: CorpusName) -> None:
        """Remove a corpus with all its documents."""
        current().principal.require_write(name)
        await asyncio.to_thread(catalog.delete, name)


def _document_routes(app: FastAPI, desk: Desk, ingest: Ingest) -> None:
    @app.post("/corpora/{name}/documents")
    async def write_documents(name: CorpusName, batch: DocumentBatch) -> IngestResponse:
        """Store documents, all or none; durable and searchable once answered."""
        current().principal.require_write(name)
        documents = [SourceDocument(**dict(document)) for document in batch.documents]
        return IngestResponse.model_validate(asdict(await ingest.write(name, documents)))

    @app.get("/corpora/{name}/documents")
    async def list_documents(
        name: CorpusName,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=512)] = None,
    ) -> DocumentPage:
        """A page of documents in the order of their ids."""
        found = await desk.documents(name, limit + 1, after)
        page = [asdict(summary) for summary in found[:limit]]
        more = page[-1]["id"] if len(found) > limit else None
        return DocumentPage.model_validate({"documents": page, "next": more})

    @app.get("/corpora/{name}/documents/{document_id:path}")
    async def get_document(name: CorpusName, document_id: DocumentId) -> DocumentBody:
        """A whole document, as parsed."""
        found = asdict(await desk.document(name, document_id))
        if not current().principal.may_write(name):
            found["readers"] = None  # who else may read it is for those who say so
        return DocumentBody.model_validate(found)

    @app.delete("/corpora/{name}/documents/{document_id:path}", status_code=204)
    async def delete_document(name: CorpusName, document_id: DocumentId) -> None:
        """Remove a document with its chunks."""
        current().principal.require_write(name)
        if not await ingest.delete(name, document_id):
            raise no_document(name, document_id)


def _prove(stores: Sequence[CorpusStore]) -> None:
    """Search every corpus with all its arms. Raises what a search of it would raise."""
    for store in stores:
        store.bm25("ready", 1)
        probe = np.zeros(store.info.dimension, dtype=np.float32)
        probe[0] = 1.0
        store.dense(probe, 1)
        if store.info.sparse:
            store.sparse(Sparse(np.zeros(1, np.int32), np.ones(1, np.float32)), 1)


def _corpus(info: CorpusInfo) -> Corpus:
    fields = asdict(info)
    return Corpus.model_validate({name: fields[name] for name in Corpus.model_fields})


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
