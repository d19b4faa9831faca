"""Routes under /corpora: what corpora there are, how they are set up, come and go."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeVar

from fastapi import FastAPI, Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.figures import figures_of
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.protocol import DocumentLine
from services.retrieve.corpus.settings_protocol import (
    Corpus,
    CorpusChange,
    CorpusList,
    CorpusSettings,
    CorpusStats,
    GenerationBody,
    RecencyBody,
)
from services.retrieve.desk import Desk
from services.retrieve.routes.paths import CorpusName
from services.retrieve.stores.corpus import (
    CorpusInfo,
    CorpusSpec,
    Preferences,
    RecencyDefault,
)
from services.retrieve.stores.engine import Generation
from services.retrieve.stores.state import RetiredError, rebuilding
from shared.context import current
from shared.settings import Settings

_SWAP_S = 0.05

Value = TypeVar("Value")


def add_routes(
    app: FastAPI, settings: Settings, desk: Desk, catalog: Catalog, ingest: Ingest
) -> None:
    """Add the routes to the app."""
    configuring = asyncio.Lock()  # a change is made from what there is before it

    @app.get("/corpora")
    async def list_corpora() -> CorpusList:
        """The corpora that the caller may read, by name."""
        return CorpusList(corpora=[corpus_body(info) for info in desk.corpora()])

    @app.put("/corpora/{name}", status_code=201, responses={200: {"model": Corpus}})
    async def put_corpus(
        name: CorpusName, response: Response, body: CorpusSettings | None = None
    ) -> Corpus:
        """Make a corpus; 200 where it was there with these settings, 409 with others."""
        current().principal.require_write(name)
        wanted = body or CorpusSettings()
        there = next((one for one in catalog.list() if one.name == name), None)
        usual = there or CorpusSpec(
            name, chunk_tokens=settings.chunk_tokens, chunk_overlap=settings.chunk_overlap
        )
        spec = CorpusSpec(
            name=name,
            description=wanted.description,
            language=_default(wanted.language, usual.language),
            chunk_tokens=_default(wanted.chunk_tokens, usual.chunk_tokens),
            chunk_overlap=_default(wanted.chunk_overlap, usual.chunk_overlap),
            curate=wanted.curate,
            recency=_recency(wanted.recency),
            readers=_readers(wanted.readers),
        )
        info, created = await ingest.create(
            spec, embedder=wanted.embedder, dimension=wanted.dimension, chunker=wanted.chunker
        )
        response.status_code = 201 if created else 200
        return corpus_body(info)

    @app.get("/corpora/{name}")
    async def get_corpus(name: CorpusName) -> Corpus:
        """One corpus: settings, stamp, counts."""
        store = desk.store(name)
        return corpus_body(store.info, rebuilding(store))

    @app.get("/corpora/{name}/stats")
    async def count_corpus(name: CorpusName) -> CorpusStats:
        """One corpus in numbers, for those who may change it."""
        current().principal.require_write(name)
        store = desk.store(name)
        found = await asyncio.to_thread(figures_of, store)
        made = await asyncio.to_thread(catalog.engine(name).generations, name)
        info = store.info
        return CorpusStats(
            documents=info.documents,
            chunks=info.chunks,
            tokens=found.tokens,
            formats=None if found.formats is None else dict(found.formats),
            last_write=found.last_write,
            longest=[DocumentLine.model_validate(asdict(one)) for one in found.longest],
            bytes=None if found.bytes is None else dict(found.bytes),
            generations=[_generation(one) for one in made],
        )

    @app.patch("/corpora/{name}")
    async def change_corpus(name: CorpusName, change: CorpusChange) -> Corpus:
        """Change what may change at any time; searches that start go by it."""
        current().principal.require_write(name)
        async with configuring:
            while True:
                current().deadline.check()
                store = desk.store(name)
                try:
                    info = await asyncio.to_thread(store.configure, _changed(store.info, change))
                except RetiredError:  # a reindex has just put another store in its place,
                    await asyncio.sleep(_SWAP_S)
                    await asyncio.to_thread(catalog.follow)  # maybe one of another process
                    continue
                return corpus_body(info)

    @app.delete("/corpora/{name}", status_code=204)
    async def delete_corpus(name: CorpusName) -> None:
        """Remove a corpus with all its documents."""
        current().principal.require_write(name)
        await asyncio.to_thread(catalog.delete, name)


def corpus_body(info: CorpusInfo, rebuilt: Mapping[str, float] | None = None) -> Corpus:
    """A corpus as the caller may see it. rebuilt: see `state.Rebuilt`."""
    fields = {**asdict(info), "rebuilding": dict(rebuilt or {})}
    if not current().principal.may_write(info.name):
        fields["readers"] = None  # who else may read it is for those who say so
    return Corpus.model_validate({name: fields[name] for name in Corpus.model_fields})


def _generation(one: Generation) -> GenerationBody:
    return GenerationBody(
        generation=one.number,
        state=one.state,
        model=one.cut.stamp.model,
        revision=one.cut.stamp.revision,
        chunker=one.cut.chunker,
        documents=one.documents,
        chunks=one.chunks,
        made_at=one.made_at,
        until=one.until,
    )


def _changed(info: CorpusInfo, change: CorpusChange) -> Preferences:
    """The preferences with what the caller said; null stands for what a new corpus has."""
    said = change.model_fields_set
    return Preferences(
        description=(change.description or "") if "description" in said else info.description,
        curate=change.curate is not False if "curate" in said else info.curate,
        recency=_recency(change.recency) if "recency" in said else info.recency,
        readers=_readers(change.readers) if "readers" in said else info.readers,
    )


def _recency(body: RecencyBody | None) -> RecencyDefault | None:
    return None if body is None else RecencyDefault(body.half_life_days, body.weight, body.field)


def _readers(body: list[str] | None) -> tuple[str, ...] | None:
    return None if body is None else tuple(body)


def _default(value: Value | None, default: Value) -> Value:
    return default if value is None else value
