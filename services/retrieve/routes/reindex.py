"""Routes about a corpus's generations: POST …/reindex and …/rollback, GET …/generations."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.reindex.copying import Copier
from services.retrieve.corpus.reindex.estimate import estimate, told_of
from services.retrieve.corpus.reindex.keeping import KINDS
from services.retrieve.corpus.reindex.protocol import (
    Estimate,
    GenerationLine,
    GenerationList,
    JudgedQuery,
    ReindexRequest,
    Rollback,
    RollbackRequest,
)
from services.retrieve.corpus.reindex.target import moves_only, planned, same_made, target
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.protocol import JobBody, job_body
from services.retrieve.routes.paths import CorpusName
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import EngineName
from services.retrieve.stores.engine import Cut, Generation
from shared.context import current
from shared.errors import ApiError, refusal
from shared.settings import Settings

_ESTIMATED: dict[int | str, dict[str, Any]] = {200: {"model": Estimate}}


def add_routes(
    app: FastAPI,
    settings: Settings,
    catalog: Catalog,
    jobs: Jobs,
    librarian: Librarian,
    preparation: Preparation,
) -> None:
    """Add the routes to the app."""
    submitting = asyncio.Lock()  # no other job of a corpus between the look and the submission

    @app.post(
        "/corpora/{name}/reindex",
        status_code=202,
        response_model=JobBody | Estimate,
        responses=_ESTIMATED,
    )
    async def reindex_corpus(
        name: CorpusName, response: Response, body: ReindexRequest | None = None
    ) -> JobBody | Estimate:
        """Build the corpus's next generation beside the live one and put it in its place; 200 with
        what it would take where `dry_run` asks for that."""
        current().principal.require_write(name)
        request = body or ReindexRequest()
        live = catalog.get(name)
        _require_qdrant(request.qdrant, settings)
        engine: EngineName = request.engine or live.info.engine
        catalog.engine_named(engine)
        cut = await target(live.info, request, librarian)
        _require_change(live, request, cut)
        await asyncio.to_thread(_require_judgement, live, request.judged)
        if request.dry_run:
            copier = Copier(live.info, planned(live.info, cut), librarian.vectors, preparation)
            response.status_code = 200
            return await estimate(live, cut, engine, copier)
        told = request.model_dump(mode="json", exclude_defaults=True)
        kind = "migrate" if moves_only(live.info, request) else "reindex"
        return await submit(kind, name, told)

    @app.post("/corpora/{name}/rollback", status_code=202)
    async def roll_back_corpus(name: CorpusName, body: RollbackRequest | None = None) -> JobBody:
        """Put the corpus's previous generation in the place of the live one, with all that was
        written since."""
        current().principal.require_write(name)
        catalog.get(name)
        found = await asyncio.to_thread(_generations, catalog, name)
        kept = [(kind, one) for kind, one in found if one.state == "previous"]
        if not kept:
            await _require_none_running(jobs, name)
            raise ApiError(
                409,
                "no_previous_generation",
                f"corpus '{name}' keeps no previous generation: the last swap is too long ago, or "
                "there was none",
            )
        kind, previous = max(kept, key=lambda one: one[1].number)
        keep_days = (body or RollbackRequest()).keep_days
        wanted = Rollback(keep_days=keep_days, made_at=previous.made_at, engine=kind)
        return await submit("rollback", name, wanted.model_dump(mode="json"))

    @app.get("/corpora/{name}/generations")
    async def list_generations(name: CorpusName) -> GenerationList:
        """The corpus's generations, by their numbers, for those who may change it."""
        current().principal.require_write(name)
        catalog.get(name)
        found = await asyncio.to_thread(_generations, catalog, name)
        return GenerationList(generations=[_line(kind, one) for kind, one in found])

    async def submit(kind: str, name: str, request: Mapping[str, Any]) -> JobBody:
        async with submitting:
            await _require_none_running(jobs, name)
            principal = current().principal.name
            job, _ = await jobs.ask(jobs.submit, kind, name, request, principal)
        return job_body(job)


async def _require_none_running(jobs: Jobs, name: str) -> None:
    last = await jobs.ask(jobs.list, name, None, 1, kinds=KINDS)
    if last and not last[0].over:
        raise ApiError(
            409,
            "reindex_running",
            f"job {last[0].id} ({last[0].kind}) is at the generations of corpus '{name}': wait "
            "until it is over, or cancel it",
        )


def _require_change(live: CorpusStore, request: ReindexRequest, cut: Cut) -> None:
    stays = request.engine in (None, live.info.engine)
    if stays and not request.force and same_made(Cut.of(live.info), cut):
        raise ApiError(
            409,
            "nothing_to_change",
            f"corpus '{live.info.name}' is made like that already: name what shall change, or send "
            "`force` to build it anew as it is",
        )


def _require_judgement(live: CorpusStore, judged: Sequence[JudgedQuery]) -> None:
    """Raise ApiError 422 for a query of whose documents none is there: it would prove nothing."""
    for place, one in enumerate(judged):
        if not live.known(list(one.relevant)):
            words = f"names no document that corpus '{live.info.name}' has"
            raise refusal(("judged", place, "relevant"), words)


def _require_qdrant(wanted: str | None, settings: Settings) -> None:
    """Raise ApiError 422 where retrieve's Qdrant is another than the caller thinks."""
    if wanted is None:
        return
    there = urlsplit(settings.qdrant_url).netloc.rpartition("@")[2]
    if wanted != there:
        raise ApiError(
            422,
            "other_qdrant",
            f"retrieve's Qdrant is {there or 'not set up'}, not {wanted[:100]}: set "
            "REFDESK_QDRANT_URL of retrieve, and start it again",
            param="qdrant",
        )


def _generations(catalog: Catalog, name: str) -> list[tuple[EngineName, Generation]]:
    found = [
        (kind, one) for kind, engine in catalog.engines.items() for one in engine.generations(name)
    ]
    return sorted(found, key=lambda one: one[1].number)


def _line(kind: EngineName, one: Generation) -> GenerationLine:
    return GenerationLine(
        number=one.number,
        state=one.state,
        made=told_of(one.cut, kind),
        documents=one.documents,
        chunks=one.chunks,
        made_at=one.made_at,
        until=one.until,
    )
