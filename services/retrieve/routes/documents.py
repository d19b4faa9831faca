"""Routes under /corpora/NAME/documents: storing, listing, reading and removing documents."""

from dataclasses import asdict
from typing import Annotated

from fastapi import FastAPI, Query

from services.retrieve.corpus.ingest import Ingest, SourceDocument
from services.retrieve.corpus.protocol import (
    DocumentBatch,
    DocumentBody,
    DocumentPage,
    IngestResponse,
)
from services.retrieve.desk import Desk, no_document
from services.retrieve.routes.paths import CorpusName, DocumentId
from shared.context import current


def add_routes(app: FastAPI, desk: Desk, ingest: Ingest) -> None:
    """Add the routes to the app."""

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
