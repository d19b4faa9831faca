"""Copying what a dark generation lacks, until next to nothing is left, and then all of it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from services.retrieve.corpus.reindex.copying import Copied, Copier
from services.retrieve.corpus.reindex.difference import Difference, difference
from services.retrieve.corpus.reindex.faults import refused
from services.retrieve.corpus.reindex.target import preferences_of
from services.retrieve.jobs.model import Run
from services.retrieve.stores.base import CorpusStore, NewDocument

_BATCH = 32  # documents that are copied together
# What may be left to do while writes wait: a handful of documents, or what takes so many seconds.
# Where documents are written as fast as they can be copied more has to be borne in the end.
_FEW = 4
_SECONDS = ((0, 2.0), (10, 10.0), (20, 30.0))  # from so many turns on
_TURNS = 50
_UNSEALED = 3  # looks at both lists that a write may overtake before one is made under the seal

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Way:
    """From where to where documents are copied, and how."""

    live: CorpusStore
    dark: CorpusStore
    copier: Copier


class CatchingUp:
    """Brings the dark generation to the state of the live one. begun: when it was made.

    What an earlier attempt at the job has copied is there already, and counted in its cursor.
    """

    def __init__(self, run: Run, way: Way, begun: datetime) -> None:
        self._run = run
        self._way = way
        self._begun = begun
        told = run.cursor or {}
        counted = (int(told.get(name, 0)) for name in ("documents", "chunks", "reused"))
        self._copied = Copied(*counted)
        self._turn = 0
        self._seconds_each: float | None = None  # a document took in the last turn
        self._left = Difference([], [])
        self._seen = 0  # the count of writes that the live one had at least when that was found
        self._overtaken = 0  # looks at the lists, by a write before the seal was there

    @property
    def cursor(self) -> Mapping[str, Any]:
        """How far it is, as the job keeps it."""
        return {
            "begun": self._begun.isoformat(),
            "documents": self._copied.documents,
            "chunks": self._copied.chunks,
            "reused": self._copied.reused,
        }

    def told(self) -> dict[str, Any]:
        """What was copied, for the result of the job."""
        return {
            "copied_documents": self._copied.documents,
            "copied_chunks": self._copied.chunks,
            "reused_vectors": self._copied.reused,
        }

    async def go_on(self) -> None:
        """Copy until what is left can be done while writes wait.

        Raises ApiError 409 `reindex_refused` where that can't be reached, and what embed and the
        stores raise.
        """
        await self._run.checkpoint(self.cursor, stage="catching up" if self._turn else "building")
        left = await asyncio.to_thread(self._look)
        while not self._is_little(left):
            if self._turn >= _TURNS:
                raise refused(
                    self._way.live.info.name,
                    "documents are written faster than they can be copied: after "
                    f"{_TURNS} turns {len(left)} were left; write less, and try again",
                )
            await self._run.checkpoint(
                self.cursor,
                stage="catching up" if self._turn else "building",
                total_documents=self._copied.documents + len(left.copy),
            )
            start = time.monotonic()
            await self._copy(left)
            self._seconds_each = (time.monotonic() - start) / max(1, len(left))
            self._turn += 1
            left = await asyncio.to_thread(self._look)

    async def end(self, threads: Executor) -> bool:
        """Copy what is left, in these threads, with the live generation sealed; False, and nothing
        is done, where that is too much: go on first.

        The lists of all documents are not compared again where nothing was written since `go_on`
        did, and else only where writes come too fast for any moment without one to be found.
        """
        left = self._left
        if self._way.live.info.writes != self._seen:
            self._overtaken += 1
            if self._overtaken <= _UNSEALED:
                return False
            left = await _called(threads, lambda _: self._look(), None)
        if not self._is_little(left, grace=2.0):
            self._turn += 1
            return False
        for ids in _batches(left.delete):
            await self._run.assure()
            await _called(threads, self._way.dark.delete, ids)
        for ids in _batches(left.copy):
            found = await _called(threads, self._way.live.whole, ids)
            made, copied = await self._way.copier.make(list(found.values()))
            await self._run.assure()
            await _called(threads, self._way.dark.write, made)
            self._copied += copied
        wanted = preferences_of(self._way.live.info)
        if preferences_of(self._way.dark.info) != wanted:
            await self._run.assure()
            await _called(threads, self._way.dark.configure, wanted)
        await self._run.assure()  # the swap follows
        return True

    def _is_little(self, left: Difference, grace: float = 1.0) -> bool:
        if self._turn == 0:  # what is proved is to be all of it
            return len(left) == 0
        bound = next(seconds for turn, seconds in reversed(_SECONDS) if self._turn >= turn)
        if self._seconds_each is None:  # all was there already, from an earlier attempt
            return len(left) <= _FEW
        return len(left) <= _FEW or len(left) * self._seconds_each <= bound * grace

    def _look(self) -> Difference:
        self._seen = self._way.live.info.writes  # before the lists are read
        self._left = difference(self._way.live.revisions(), self._way.dark.revisions())
        return self._left

    async def _copy(self, left: Difference) -> None:
        """One turn. The next documents are made while the last ones are written."""
        for ids in _batches(left.delete):
            await self._run.assure()
            await asyncio.to_thread(self._way.dark.delete, ids)
            await self._run.checkpoint(self.cursor)
        ahead: asyncio.Task[tuple[list[NewDocument], Copied]] | None = None
        making: asyncio.Task[tuple[list[NewDocument], Copied]] | None = None
        try:
            for ids in _batches(left.copy):
                making = asyncio.create_task(self._made(ids))
                if ahead is not None:
                    await self._keep(*await ahead)
                ahead = making
            if ahead is not None:
                await self._keep(*await ahead)
        finally:
            for task in (ahead, making):
                if task is not None:
                    task.cancel()

    async def _made(self, ids: Sequence[str]) -> tuple[list[NewDocument], Copied]:
        found = await asyncio.to_thread(self._way.live.whole, ids)  # what was deleted is absent
        return await self._way.copier.make(list(found.values()))

    async def _keep(self, made: list[NewDocument], copied: Copied) -> None:
        await self._run.assure()
        await asyncio.to_thread(self._way.dark.write, made)
        self._copied += copied
        await self._run.checkpoint(
            self.cursor, documents=copied.documents, chunks=copied.chunks, bytes=copied.bytes
        )


def _batches(document_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(document_ids), _BATCH):
        yield document_ids[at : at + _BATCH]


async def _called(threads: Executor, method: Callable[[Given], Result], given: Given) -> Result:
    return await asyncio.get_running_loop().run_in_executor(threads, method, given)
