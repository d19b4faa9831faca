"""Routes that carry whole corpora: GET …/export and …/backup, POST …/restore."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from services.retrieve.corpus.catalog import Catalog, corpus_exists, require_name
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.transfer import backup, export, parquet
from services.retrieve.corpus.transfer.protocol import BackupBody, Restored
from services.retrieve.corpus.transfer.restore import restore
from services.retrieve.desk import Desk
from services.retrieve.routes.corpora import corpus_body
from services.retrieve.routes.paths import CorpusName
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.layout import DATABASE
from shared.context import current
from shared.errors import ApiError
from shared.settings import Settings

BACKUP_TYPE = "application/vnd.sqlite3"
SHA256 = "x-content-sha256"  # of a backup's file, in hex
_NDJSON_TYPE = "application/x-ndjson"
_PART = 1024 * 1024  # bytes written at a time
_BODY = {
    "requestBody": {
        "required": True,
        "content": {BACKUP_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_routes(
    app: FastAPI, settings: Settings, desk: Desk, catalog: Catalog, librarian: Librarian
) -> None:
    """Add the routes to the app."""
    folder = settings.transfers_dir

    @app.get("/corpora/{name}/export", response_class=StreamingResponse)
    async def export_corpus(
        name: CorpusName,
        form: Annotated[Literal["ndjson", "parquet"], Query(alias="format")] = "ndjson",
        vectors: bool = False,
    ) -> Response:
        """All documents of a corpus, as NDJSON that POST …/ingest takes back, or as Parquet."""
        current().principal.require_write(name)
        store = desk.store(name)
        info = store.info
        stamp = info.stamp if vectors else None
        if form == "parquet":
            documents = export.documents(store, folder)
            parts = parquet.pack(documents, stamp, sparse=info.sparse)
            return _download(StreamingResponse(parts, media_type=parquet.CONTENT_TYPE), name, form)
        lines = export.lines(store, folder, vectors=vectors)
        return _download(StreamingResponse(lines, media_type=_NDJSON_TYPE), name, form)

    @app.get("/corpora/{name}/backup", response_class=StreamingResponse)
    async def back_up_corpus(name: CorpusName) -> Response:
        """All of a corpus as one file, of one moment of it while writes go on."""
        current().principal.require_write(name)
        made = await asyncio.to_thread(backup.make, desk.store(name), folder)
        headers = {"content-length": str(made.size), SHA256: made.sha256}
        answer = StreamingResponse(made.parts(), headers=headers, media_type=BACKUP_TYPE)
        return _download(answer, name, "backup")

    @app.post(
        "/corpora/{name}/restore",
        status_code=201,
        responses={200: {"model": Restored}},
        openapi_extra=_BODY,
    )
    async def restore_corpus(
        name: CorpusName,
        request: Request,
        response: Response,
        replace: bool = False,
        keep_days: Annotated[float, Query(ge=0, le=365)] = 7.0,
        sha256: Annotated[str, Header(alias=SHA256, max_length=64)] = "",
    ) -> Restored:
        """Make a corpus of a backup; it is there when this is answered, whole or not at all.

        replace: a corpus that is there is swapped for it, and kept for so many days for a rollback;
        the answer is 200 then.
        """
        current().principal.require_write(name)
        require_name(name)
        there = name in {info.name for info in catalog.list()}
        if there and not replace:  # before anything is uploaded
            raise corpus_exists(name)
        until = datetime.now(UTC) + timedelta(days=keep_days) if replace else None
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix="restore-") as uploaded:
                await _receive(request.stream(), Path(uploaded) / DATABASE, sha256)
                info, told = await asyncio.to_thread(
                    restore, Path(uploaded), name, catalog, folder, until
                )
        except ClientDisconnect:
            message = "the backup broke off; nothing was kept of it: send it again"
            raise ApiError(400, "body_incomplete", message) from None
        except OSError as error:
            raise write_failed(error, folder) from error
        response.status_code = 200 if there else 201
        return Restored(
            corpus=corpus_body(info),
            backup=BackupBody(
                name=told.name,
                made_at=told.made_at,
                refdesk=told.refdesk,
                documents=told.documents,
                chunks=told.chunks,
            ),
            notes=await _notes(info, librarian),
        )


def _download(answer: Response, name: str, kind: str) -> Response:
    answer.headers["content-disposition"] = f'attachment; filename="{name}.{kind}"'
    return answer


async def _receive(stream: AsyncIterator[bytes], path: Path, sha256: str) -> None:
    """Put a body into a new file. Raises ApiError 422 `broken_backup` where it has another SHA-256
    than it should, if it is told one."""
    found = hashlib.sha256()
    waiting = bytearray()
    with path.open("xb") as file:

        def put() -> None:
            file.write(waiting)
            found.update(waiting)
            waiting.clear()

        async for part in stream:
            waiting += part
            if len(waiting) >= _PART:
                await asyncio.to_thread(put)
        await asyncio.to_thread(put)
    if sha256 and sha256.lower() != found.hexdigest():
        raise ApiError(
            422,
            "broken_backup",
            f"what arrived does not have the SHA-256 in {SHA256}: send it again",
        )


async def _notes(info: CorpusInfo, librarian: Librarian) -> list[str]:
    try:
        error = await librarian.mismatch(info)
    except ApiError as unknown:
        return [f"whether embed serves the corpus's model can't be said: {unknown.message}"]
    return [] if error is None else [error.message]
