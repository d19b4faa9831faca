"""The work of a job that puts another generation of a corpus in the place of the live one.

build (or go on with) a dark generation -> catch up with what is written meanwhile -> prove it ->
seal the live one, catch up with the last of it, swap, read back.

Searches and writes go on throughout; writes wait while the live generation is sealed. Whatever
fails before the swap leaves the live generation as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import MISMATCH
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.reindex.catching_up import CatchingUp, Way
from services.retrieve.corpus.reindex.copying import Copier
from services.retrieve.corpus.reindex.faults import refused
from services.retrieve.corpus.reindex.gates import Proof, nothing_asked, prove, require_sound
from services.retrieve.corpus.reindex.protocol import ReindexRequest, Rollback
from services.retrieve.corpus.reindex.sealing import sealed, to_the_end
from services.retrieve.corpus.reindex.swapping import (
    Swapped,
    reopened,
    stand_alone,
    stand_back,
    swap_in,
)
from services.retrieve.corpus.reindex.target import same_made, target
from services.retrieve.jobs.attend import PASSING
from services.retrieve.jobs.model import LeaseLostError, Run
from services.retrieve.search.pipeline import Staff
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.engine import Cut, Engine
from shared.errors import ApiError

Result = TypeVar("Result")

_WAIT_S = 0.2  # between two looks whether somebody else is done with a corpus's generations


@dataclass(frozen=True)
class _Plan:
    """What is to take whose place, and what it must pass. former: it served before."""

    name: str
    live: CorpusStore
    dark: CorpusStore
    engine: Engine  # of the dark one
    request: ReindexRequest
    former: bool = False

    @property
    def until(self) -> datetime:
        """When the generation that is live now is to be forgotten."""
        return datetime.now(UTC) + timedelta(days=self.request.keep_days)


class Reindex:
    """Makes generations."""

    def __init__(
        self,
        catalog: Catalog,
        staff: Staff,
        librarian: PatientLibrarian,
        preparation: Preparation,
    ) -> None:
        self._catalog = catalog
        self._staff = staff
        self._librarian = librarian
        self._preparation = preparation

    async def reindex(self, run: Run) -> Mapping[str, Any]:
        """Build the next generation as the job's request (a `ReindexRequest`) wants it, and swap.

        Raises ApiError 409 `reindex_refused` where it does not pass, and what embed and the stores
        raise.
        """
        request = ReindexRequest.model_validate(run.job.request)
        name = run.job.corpus
        async with self._alone(name):
            live = self._catalog.get(name)
            engine = self._catalog.engine_named(request.engine or live.info.engine)
            await run.assure()
            state = await asyncio.to_thread(self._state, engine, name, _moment(run))
            if state == "live":  # the process died just after the swap
                return await self._ended(name, engine, request.keep_days)
            cut = await target(live.info, request, self._staff.librarian)
            dark = await asyncio.to_thread(engine.dark, name) if state == "dark" else None
            if dark is None or not same_made(Cut.of(dark.info), cut):
                changed = request.engine not in (None, live.info.engine) or request.force
                if not changed and same_made(Cut.of(live.info), cut):  # another job was faster
                    return _told(live)
                await run.assure()
                dark = await self._made(live, engine.build, cut, live.info.generation)
            begun = await self._made(live, _begun, engine, name)
            plan = _Plan(name, live, dark, engine, request)
            return await self._replace(run, plan, begun)

    async def rollback(self, run: Run) -> Mapping[str, Any]:
        """Catch up the previous generation that the job's request (a `Rollback`) names, and swap.

        Raises ApiError 409 `no_previous_generation` where it is gone, and as `reindex`.
        """
        wanted = Rollback.model_validate(run.job.request)
        name = run.job.corpus
        async with self._alone(name):
            live = self._catalog.get(name)
            engine = self._catalog.engine_named(wanted.engine)
            await run.assure()
            match await asyncio.to_thread(self._state, engine, name, wanted.made_at):
                case "live":
                    return await self._ended(name, engine, wanted.keep_days)
                case "dark":
                    dark = await asyncio.to_thread(engine.dark, name)
                case "previous":
                    await run.assure()
                    dark = await asyncio.to_thread(engine.revive, name, live.info.generation)
                case _:
                    dark = None
            if dark is None:
                raise ApiError(409, "no_previous_generation", f"corpus '{name}' keeps it no longer")
            request = ReindexRequest(keep_days=wanted.keep_days)
            plan = _Plan(name, live, dark, engine, request, former=True)
            return await self._replace(run, plan, wanted.made_at)

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """With nobody else at the corpus's generations; waits for whoever is."""
        held = self._catalog.generations(name)
        while not held.acquire(blocking=False):  # noqa: ASYNC110 - threads hold it, too
            await asyncio.sleep(_WAIT_S)
        try:
            yield
        finally:
            held.release()

    async def _made(
        self, live: CorpusStore, method: Callable[..., Result], *given: object
    ) -> Result:
        """What a method of the engine gives, in a thread. Raises ApiError 404 where the corpus has
        been deleted under the work, whatever error came of that."""
        loop = asyncio.get_running_loop()
        try:
            return await to_the_end(loop.run_in_executor(None, method, *given))
        except ApiError as error:
            if _serves(self._catalog, live):
                raise
            raise _deleted(live.info.name) from error

    def _state(self, engine: Engine, name: str, begun: datetime | None) -> str | None:
        """The state of the generation that was begun then; None where there is none."""
        if self._catalog.engine(name) is not engine and name in engine.names():
            stand_back(engine, name)  # nobody has written to it
        states = {one.made_at: one.state for one in engine.generations(name)}
        return None if begun is None else states.get(begun)

    async def _replace(self, run: Run, plan: _Plan, begun: datetime) -> Mapping[str, Any]:
        copier = Copier(plan.live.info, plan.dark.info, self._librarian.vectors, self._preparation)
        catching_up = CatchingUp(run, Way(plan.live, plan.dark, copier), begun)
        task = asyncio.current_task()
        try:
            if task is not None and task.cancelling():  # while the generation was made
                raise asyncio.CancelledError
            await catching_up.go_on()
            proof = await self._proved(run, plan)  # it takes a while, in which more is written
            swapped = None
            while swapped is None:
                await catching_up.go_on()
                await run.checkpoint(catching_up.cursor, stage="swapping")
                swapped = await self._swap(plan, catching_up, proof)
        except BaseException as error:
            await self._clear_away(plan, error, run)
            if isinstance(error, ApiError) and error.code == MISMATCH:
                # In the words of the librarian it would be the corpus that needs another model.
                made = plan.dark.info
                why = f"embed no longer serves {made.model} {made.revision}, which it is made with"
                raise refused(plan.name, why) from error
            raise
        reopening = asyncio.get_running_loop().run_in_executor(
            None, reopened, self._catalog, plan.name
        )
        await to_the_end(reopening)
        if swapped.fault is not None:
            raise swapped.fault
        return {**_told(plan.dark), **catching_up.told(), **proof.told()}

    async def _clear_away(self, plan: _Plan, error: BaseException, run: Run) -> None:
        """Leave nothing behind that is of no more use. Raises ApiError 404 where the corpus has
        been deleted under the work, whatever error came of that."""
        gone = not _serves(self._catalog, plan.live)
        if not (gone or _is_final(error, run)):
            return
        try:
            await run.assure()
        except (LeaseLostError, ApiError):  # another attempt goes on with it, or may do so
            return

        def leave() -> None:
            with suppress(ApiError):
                if plan.former:
                    plan.engine.shelve(plan.name, plan.until)
                else:
                    plan.engine.discard(plan.name)

        await to_the_end(asyncio.get_running_loop().run_in_executor(None, leave))
        if gone and not isinstance(error, asyncio.CancelledError | LeaseLostError):
            raise _deleted(plan.name) from error

    async def _proved(self, run: Run, plan: _Plan) -> Proof:
        """Raises ApiError 409 `reindex_refused` where the dark generation is not as good."""
        await run.checkpoint(run.cursor or {}, stage="proving")
        await require_sound(plan.dark)
        if plan.former:  # it served before
            return await nothing_asked(plan.live)
        proof = await prove(plan.live, plan.dark, plan.request.judged, self._staff)
        proof.require(plan.name, plan.request.canary_margin, plan.request.margin)
        return proof

    async def _swap(self, plan: _Plan, catching_up: CatchingUp, proof: Proof) -> Swapped | None:
        """The last of catching up, and the swap itself, while no write goes through. None where too
        much is left for that."""
        loop = asyncio.get_running_loop()
        swapped = None
        with suppress(_NotYetError):
            async with sealed(plan.live) as threads:
                if not await catching_up.end(threads):
                    raise _NotYetError
                swap = partial(swap_in, self._catalog, plan.live, plan.dark, plan.until, proof)
                swapped = await to_the_end(loop.run_in_executor(threads, swap))
        return swapped

    async def _ended(self, name: str, engine: Engine, keep_days: float) -> Mapping[str, Any]:
        """What is left to do after a swap, where the process died."""
        until = datetime.now(UTC) + timedelta(days=keep_days)
        await asyncio.to_thread(stand_alone, self._catalog, name, engine, until)
        return _told(self._catalog.get(name))


class _NotYetError(Exception):
    """Too much is left to be copied while writes wait."""


def _told(store: CorpusStore) -> dict[str, Any]:
    info = store.info
    return {
        "generation": info.generation,
        "engine": info.engine,
        "documents": info.documents,
        "chunks": info.chunks,
    }


def _serves(catalog: Catalog, store: CorpusStore) -> bool:
    try:
        return catalog.get(store.info.name) is store
    except ApiError:
        return False


def _moment(run: Run) -> datetime | None:
    """When the dark generation of an earlier attempt was begun, which tells it from others."""
    told = (run.cursor or {}).get("begun")
    return None if told is None else datetime.fromisoformat(told)


def _begun(engine: Engine, name: str) -> datetime:
    """When the dark generation was made. Raises ApiError 404 where it went with its corpus."""
    found = [one.made_at for one in engine.generations(name) if one.state == "dark"]
    if not found:
        raise _deleted(name)
    return found[0]


def _deleted(name: str) -> ApiError:
    return ApiError(404, "corpus_not_found", f"corpus '{name}' was deleted meanwhile")


def _is_final(error: BaseException, run: Run) -> bool:
    """Whether what was built is of no more use: the job will not be taken up again."""
    if isinstance(error, asyncio.CancelledError):
        return run.cancelled
    if isinstance(error, ApiError):
        return error.status not in PASSING
    passing = LeaseLostError | ConnectionError | TimeoutError
    return isinstance(error, Exception) and not isinstance(error, passing)
