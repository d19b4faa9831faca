"""The desk's HTTP: routes that translate, and nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Response
from prometheus_client import Counter, Histogram

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian, model_mismatch
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.ingest import Ingest, SourceDocument
from services.retrieve.protocol import (
    Corpus,
    CorpusList,
    CorpusSettings,
    DocumentBatch,
    DocumentBody,
    DocumentPage,
    IngestResponse,
    RetrieveRequest,
    RetrieveResponse,
)
from services.retrieve.search import pipeline
from services.retrieve.search.curator import Curator
from services.retrieve.stores.base import CorpusInfo, CorpusSpec, CorpusStore
from shared.auth import Principal
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.service import create_service
from shared.settings import Settings

STAGE_SECONDS = Histogram(
    "refdesk_retrieve_stage_seconds",
    "Time of a stage of a search, of searches in which it ran",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
DEGRADED = Counter("refdesk_retrieve_degraded", "Searches answered without a stage", ["stage"])
DROPPED = Counter("refdesk_retrieve_dropped", "Passages left out of an answer", ["reason"])

CorpusName = Annotated[str, Path(max_length=256)]
DocumentId = Annotated[str, Path(max_length=512)]


async def build(settings: Settings) -> FastAPI:
    """Open the corpora, make the app. Raises StartupError where the data folder can't be used."""
    catalog = await asyncio.to_thread(Catalog.open, settings.corpora_dir)
    return create_app(settings, catalog)


def create_app(settings: Settings, catalog: Catalog) -> FastAPI:
    """The app over open corpora; it closes them at the end."""
    embed = ServiceClient("embed", settings.url("embed"), settings=settings)
    rerank = ServiceClient("rerank", settings.url("rerank"), settings=settings)
    librarian, curator = Librarian(embed), Curator(rerank)
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

    app = create_service("retrieve", settings, probe=probe, close=close)
    _corpus_routes(app, settings, catalog, ingest)
    _document_routes(app, catalog, ingest)

    @app.post("/retrieve", response_model=RetrieveResponse)
    async def retrieve(request: RetrieveRequest) -> Response:
        """The passages that answer a question, best first, with why and with what was left out."""
        context = current()
        stores = _open(catalog, context.principal, request.corpora)
        found = await pipeline.retrieve(request, stores, librarian, curator, context.deadline)
        _record(found)
        # Encoded here: the framework would validate the whole answer a second time.
        return Response(found.model_dump_json(exclude_none=False), media_type="application/json")

    return app


def _corpus_routes(app: FastAPI, settings: Settings, catalog: Catalog, ingest: Ingest) -> None:
    @app.get("/corpora")
    async def list_corpora() -> CorpusList:
        """The corpora that the caller may read, by name."""
        principal = current().principal
        return CorpusList(
            corpora=[_corpus(info) for info in catalog.list() if principal.may_read(info.name)]
        )

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
        )
        info, created = await ingest.create(spec)
        response.status_code = 201 if created else 200
        return _corpus(info)

    @app.get("/corpora/{name}")
    async def get_corpus(name: CorpusName) -> Corpus:
        """One corpus: settings, stamp, counts."""
        return _corpus(_store(catalog, name).info)

    @app.delete("/corpora/{name}", status_code=204)
    async def delete_corpus(name: CorpusName) -> None:
        """Remove a corpus with all its documents."""
        current().principal.require_write(name)
        await asyncio.to_thread(catalog.delete, name)


def _document_routes(app: FastAPI, catalog: Catalog, ingest: Ingest) -> None:
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
        found = await asyncio.to_thread(_store(catalog, name).documents, limit + 1, after)
        page = [asdict(summary) for summary in found[:limit]]
        more = page[-1]["id"] if len(found) > limit else None
        return DocumentPage.model_validate({"documents": page, "next": more})

    @app.get("/corpora/{name}/documents/{document_id:path}")
    async def get_document(name: CorpusName, document_id: DocumentId) -> DocumentBody:
        """A whole document, as parsed."""
        found = await asyncio.to_thread(_store(catalog, name).document, document_id)
        if found is None:
            raise _no_document(name, document_id)
        return DocumentBody.model_validate(asdict(found))

    @app.delete("/corpora/{name}/documents/{document_id:path}", status_code=204)
    async def delete_document(name: CorpusName, document_id: DocumentId) -> None:
        """Remove a document with its chunks."""
        current().principal.require_write(name)
        if not await ingest.delete(name, document_id):
            raise _no_document(name, document_id)


def _prove(stores: Sequence[CorpusStore]) -> None:
    """Search every corpus with both arms. Raises what a search of it would raise."""
    for store in stores:
        store.bm25("ready", 1)
        probe = np.zeros(store.info.dimension, dtype=np.float32)
        probe[0] = 1.0
        store.dense(probe, 1)


def _store(catalog: Catalog, name: str) -> CorpusStore:
    """A corpus that the caller may read. Raises ApiError 403 or 404."""
    current().principal.require_read(name)
    return catalog.get(name)


def _open(catalog: Catalog, principal: Principal, names: Sequence[str]) -> dict[str, CorpusStore]:
    """The corpora of a search. Raises ApiError 403, or 404 that names those there are."""
    for name in names:
        principal.require_read(name)
    try:
        return {name: catalog.get(name) for name in names}
    except ApiError as error:
        if error.status != 404:
            raise
        known = {info.name for info in catalog.list()} | set(catalog.damaged)
        unknown = next((name for name in names if name not in known), names[0])
        readable = ", ".join(sorted(filter(principal.may_read, known))) or "none yet"
        raise ApiError(
            404,
            error.code,
            f"there is no corpus '{unknown}'; there is: {readable}",
            param=f"corpora.{names.index(unknown)}",
        ) from None


def _record(found: RetrieveResponse) -> None:
    for stage, milliseconds in found.timings_ms.items():
        if milliseconds:
            STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
    for stage in found.degraded:
        DEGRADED.labels(stage).inc()
    for drop in found.dropped:
        DROPPED.labels(drop.reason).inc()


def _corpus(info: CorpusInfo) -> Corpus:
    fields = asdict(info)
    return Corpus.model_validate({name: fields[name] for name in Corpus.model_fields})


def _default(value: int | None, default: int) -> int:
    return default if value is None else value


def _no_document(corpus: str, document_id: str) -> ApiError:
    return ApiError(
        404, "document_not_found", f"there is no document '{document_id}' in corpus '{corpus}'"
    )
