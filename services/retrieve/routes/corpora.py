"""Routes under /corpora: what corpora there are, and how they come and go."""

import asyncio
from dataclasses import asdict

from fastapi import FastAPI, Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.protocol import Corpus, CorpusList, CorpusSettings
from services.retrieve.desk import Desk
from services.retrieve.routes.paths import CorpusName
from services.retrieve.stores.base import CorpusInfo, CorpusSpec
from shared.context import current
from shared.settings import Settings


def add_routes(
    app: FastAPI, settings: Settings, desk: Desk, catalog: Catalog, ingest: Ingest
) -> None:
    """Add the routes to the app."""

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


def _corpus(info: CorpusInfo) -> Corpus:
    fields = asdict(info)
    return Corpus.model_validate({name: fields[name] for name in Corpus.model_fields})


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
