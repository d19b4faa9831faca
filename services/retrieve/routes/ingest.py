"""POST /corpora/NAME/ingest: documents and files of any number, loaded by a job."""

import asyncio
import tempfile
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from starlette.requests import ClientDisconnect

from services.retrieve.corpus.bodies import (
    CONTENT_TYPES,
    MAX_LINE_BYTES,
    BodyLimits,
    items_of,
    receive_body,
)
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.prepare import recipe_of
from services.retrieve.corpus.protocol import IngestLimits
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.model import Job
from services.retrieve.jobs.protocol import JobBody, job_body
from services.retrieve.routes.paths import CorpusName
from services.retrieve.stores.local.faults import write_failed
from shared.context import current
from shared.errors import ApiError
from shared.settings import Settings

KIND = "ingest"
_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["documents"],
                    "additionalProperties": False,
                    "properties": {
                        "documents": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"$ref": "#/components/schemas/Document"},
                        }
                    },
                }
            },
            "application/x-ndjson": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": _BINARY},
                        "documents": {"type": "string", "description": "JSON: a list of objects"},
                    },
                }
            },
            "application/vnd.apache.parquet": {"schema": _BINARY},
            "application/zip": {"schema": _BINARY},
        },
    }
}


def add_routes(app: FastAPI, settings: Settings, ingest: Ingest, jobs: Jobs) -> None:
    """Add the routes to the app."""
    folder = settings.data_dir / "uploads"  # bodies while they come in, in files without names
    limits = IngestLimits(
        max_upload_bytes=max(settings.max_upload_mb << 20, settings.max_body_bytes),
        max_file_bytes=settings.max_file_mb << 20,
        max_line_bytes=MAX_LINE_BYTES,
    )
    body_limits = BodyLimits(json=settings.max_body_bytes, file=limits.max_file_bytes)

    @app.get("/corpora/{name}/ingest")
    async def tell_limits(name: CorpusName) -> IngestLimits:
        """What may be loaded by a job, so that whoever loads can leave out what is too large."""
        current().principal.require_write(name)
        ingest.live(name)
        return limits

    @app.post("/corpora/{name}/ingest", status_code=202, openapi_extra=_BODY)
    async def ingest_documents(
        name: CorpusName,
        request: Request,
        prefix: Annotated[str, Query(max_length=256)] = "",
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> JobBody:
        """Load documents by a job: JSON as for POST …/documents, NDJSON with a document in each
        line, Parquet with one in each row, a form with files, or a ZIP of files. Answered once
        everything is on the disk; the job's verdicts tell what became of each document."""
        current().principal.require_write(name)
        recipe_of(ingest.live(name).info)
        await jobs.ask(jobs.require_room)
        content_type = request.headers.get("content-type", "")
        kind = CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())
        if kind is None:
            raise ApiError(
                415,
                "unsupported_body",
                "send the documents with a Content-Type of application/json, "
                "application/x-ndjson, application/vnd.apache.parquet, multipart/form-data or "
                "application/zip",
            )
        if prefix and kind != "zip":
            message = "prefix: is for the names in a ZIP alone"
            raise ApiError(422, "invalid_request", message, param="prefix")

        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                received = await receive_body(request.stream(), kind, content_type, file)
                principal = current().principal.name

                def submit() -> Job:
                    told: dict[str, Any] = {"body": kind, "bytes": received.size}
                    told |= {"prefix": prefix} if prefix else {}
                    return jobs.submit(
                        KIND,
                        name,
                        told,
                        principal,
                        items=items_of(received, body_limits, prefix),
                        idempotency_key=idempotency_key,
                    )[0]

                return job_body(await jobs.take_in(submit))
        except ClientDisconnect:
            message = "the body broke off; nothing was kept of it: send it again"
            raise ApiError(400, "body_incomplete", message) from None
        except OSError as error:
            raise write_failed(error, folder) from error
