"""Routes under /corpora/NAME/documents: storing, listing, reading and removing documents."""

from dataclasses import asdict
from typing import Annotated

from fastapi import FastAPI, Query

from services.retrieve.corpus.ingest import Entry, Ingest, Outcome, Refused
from services.retrieve.corpus.protocol import (
    ChangesRequest,
    ChangesResponse,
    DeleteRequest,
    DeleteResponse,
    Document,
    DocumentBatch,
    DocumentBody,
    DocumentPage,
    DocumentVerdict,
    IngestResponse,
    Unfit,
)
from services.retrieve.corpus.source import content_hash, source_document
from services.retrieve.desk import Desk, no_document
from services.retrieve.routes.paths import CorpusName, DocumentId
from services.retrieve.stores.filters import read_filter
from shared.context import current
from shared.errors import ApiError, ErrorFields

_MAX_FILTER = 32_768  # characters, in a head of at most 64 KiB


def add_routes(app: FastAPI, desk: Desk, ingest: Ingest) -> None:
    """Add the routes to the app."""

    @app.post("/corpora/{name}/documents", response_model_exclude_none=True)
    async def write_documents(name: CorpusName, batch: DocumentBatch) -> IngestResponse:
        """Store documents; durable and searchable once answered. One that is at fault keeps out
        itself, or all of them where they are `atomic`."""
        current().principal.require_write(name)
        documents = [_entry(place, one) for place, one in enumerate(batch.documents)]
        done = await ingest.write(name, documents, atomic=batch.atomic)
        return IngestResponse(
            results=[_verdict(one) for one in done.results],
            documents=done.documents,
            chunks=done.chunks,
            writes=done.writes,
        )

    @app.post("/corpora/{name}/documents/delete")
    async def delete_documents(name: CorpusName, request: DeleteRequest) -> DeleteResponse:
        """Remove documents with their chunks, all in one step; those that are not there are no
        fault."""
        current().principal.require_write(name)
        ids = list(dict.fromkeys(request.ids))
        deleted = await ingest.delete(name, ids)
        there = set(deleted)
        return DeleteResponse(deleted=deleted, missing=[one for one in ids if one not in there])

    @app.post("/corpora/{name}/changes")
    async def compare_documents(name: CorpusName, request: ChangesRequest) -> ChangesResponse:
        """Which documents need to be sent: those that are not stored as they are, by the hashes of
        their bytes. Nothing is changed."""
        current().principal.require_write(name)
        hashes = {
            one.id: content_hash(
                one.sha256,
                title=one.title,
                url=one.url,
                format=one.format,
                metadata=one.metadata,
                readers=one.readers,
            )
            for one in request.documents
        }
        changed = await ingest.changed(name, hashes)
        return ChangesResponse(changed=changed, unchanged=len(hashes) - len(changed))

    @app.get("/corpora/{name}/documents")
    async def list_documents(
        name: CorpusName,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=512)] = None,
        prefix: Annotated[str | None, Query(max_length=512)] = None,
        condition: Annotated[str | None, Query(alias="filter", max_length=_MAX_FILTER)] = None,
    ) -> DocumentPage:
        """A page of documents in the order of their ids: those whose ids begin with `prefix` and
        whose metadata passes `filter`, JSON of the same grammar as in POST /retrieve."""
        found = await desk.documents(name, limit + 1, after, prefix or "", read_filter(condition))
        page = [asdict(summary) for summary in found[:limit]]
        more = page[-1]["id"] if len(found) > limit else None
        return DocumentPage.model_validate({"documents": page, "next": more})

    @app.get("/corpora/{name}/documents/{document_id:path}")
    async def get_document(name: CorpusName, document_id: DocumentId) -> DocumentBody:
        """A whole document, as parsed."""
        found = asdict(await desk.document(name, document_id))
        del found["outline"]  # of a long document many times its text
        if not current().principal.may_write(name):
            found["readers"] = None  # who else may read it is for those who say so
        return DocumentBody.model_validate(found)

    @app.delete("/corpora/{name}/documents/{document_id:path}", status_code=204)
    async def delete_document(name: CorpusName, document_id: DocumentId) -> None:
        """Remove a document with its chunks."""
        current().principal.require_write(name)
        if not await ingest.delete(name, [document_id]):
            raise no_document(name, document_id)


def _entry(place: int, sent: Document | Unfit) -> Entry | Refused:
    where = f"documents.{place}"
    if isinstance(sent, Unfit):
        return Refused(sent.id, sent.error("documents", place))
    try:
        return Entry(source_document(sent), f"{where}.text")
    except ApiError as error:
        param = f"{where}.{error.param}" if error.param else where
        return Refused(
            sent.id, ApiError(error.status, error.code, f"{where}: {error.message}", param=param)
        )


def _verdict(outcome: Outcome) -> DocumentVerdict:
    if isinstance(outcome, Refused):
        error = outcome.error
        fields = ErrorFields.model_validate(error.body()["error"])
        return DocumentVerdict(id=outcome.id, status="failed", error=fields)
    return DocumentVerdict(id=outcome.id, status=outcome.status, chunks=outcome.chunks)
