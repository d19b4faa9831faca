"""The work of a job that loads documents: items in, verdicts out, the embedder busy in between.

    read ─► prepare (worker processes) ─► group ─► embed ─► write ─► checkpoint

The stages run side by side with short queues between them: each waits for the next one, so that no
more is in memory than a few groups. Everything leaves in the order in which it came, so the number
of the last item that is stored says all about how far the job is: begun again from there it does
at most the last groups twice, which changes nothing (a document that is stored is unchanged).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.retrieve.corpus.ingest import Entry, Ingest, Outcome, Ready, Refused
from services.retrieve.corpus.patience import PatientLibrarian
from services.retrieve.corpus.prepare import Prepared, Recipe, recipe_of
from services.retrieve.corpus.protocol import FileLabels, Unfit, document_or_unfit
from services.retrieve.corpus.source import SourceFile, source_document
from services.retrieve.jobs.model import Item, Run, Verdict
from services.retrieve.stores.base import KnownDocument
from services.retrieve.stores.corpus import CorpusInfo
from shared.errors import ApiError

_ITEMS_AT_ONCE = 64
_WAITING = 16  # documents between two stages
# A group is embedded together and written in one transaction. Large enough that embed's batches are
# full and that flushing to the disk costs little beside embedding; small enough that a write does
# not hold up a search, nor a crash cost much.
_GROUP_CHUNKS = 256
_GROUP_DOCUMENTS = 64
_GROUPS = 2  # that are embedded at a time: while one ends, the next keeps embed busy


@dataclass
class _Arrival:
    """An item on its way. entry: None where it is none; `settled` says what became of it then."""

    seq: int
    name: str
    size: int
    entry: Entry | None = None
    settled: Outcome | None = None
    stored: KnownDocument | None = None
    recipe: Recipe | None = None
    task: asyncio.Task[Prepared | ApiError] | None = None

    @property
    def id(self) -> str:
        """Of its document, as far as it is known."""
        return self.entry.source.id if self.entry else self.name


@dataclass
class _Group:
    """Items that are embedded and written together, in order."""

    arrivals: list[_Arrival] = field(default_factory=list)
    prepared: list[Prepared | ApiError] = field(default_factory=list)
    chunks: int = 0

    @property
    def full(self) -> bool:
        return self.chunks >= _GROUP_CHUNKS or len(self.arrivals) >= _GROUP_DOCUMENTS

    async def add(self, arrival: _Arrival) -> None:
        """Add an item, once it is prepared."""
        self.arrivals.append(arrival)
        if arrival.task is not None:
            prepared = await arrival.task
            self.prepared.append(prepared)
            self.chunks += len(prepared.chunks) if isinstance(prepared, Prepared) else 0

    @property
    def entries(self) -> list[Entry]:
        return [one.entry for one in self.arrivals if one.entry is not None]


class Loading:
    """Does jobs of the kind "ingest"."""

    def __init__(self, ingest: Ingest, librarian: PatientLibrarian) -> None:
        self._ingest = ingest
        self._librarian = librarian

    async def work(self, run: Run) -> Mapping[str, Any]:
        """Store the documents of a job's payload. Raises ApiError, and what `run` does; what was
        stored until then stays."""
        corpus = run.job.corpus
        recipe_of(self._ingest.live(corpus).info)
        arrivals: asyncio.Queue[_Arrival | None] = asyncio.Queue(_WAITING)
        groups: asyncio.Queue[tuple[_Group, asyncio.Task[Ready]] | None] = asyncio.Queue(_GROUPS)
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._read(run, arrivals, stages))
                stages.create_task(self._group(corpus, arrivals, groups, stages))
                stages.create_task(self._write(run, groups))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        info = self._ingest.live(corpus).info
        return {"documents": info.documents, "chunks": info.chunks}

    async def _read(
        self, run: Run, arrivals: asyncio.Queue[_Arrival | None], stages: asyncio.TaskGroup
    ) -> None:
        """Items, compared with what is stored; what changed is given to the worker processes."""
        after = -1 if run.cursor is None else int(run.cursor["after"])
        await run.checkpoint({"after": after}, stage="storing")
        while items := await run.items(after, _ITEMS_AT_ONCE):
            found = await asyncio.to_thread(_arrived, items)
            store = self._ingest.live(run.job.corpus)
            entries = [one.entry for one in found if one.entry is not None]
            unchanged, known = await self._ingest.unchanged(store, entries)
            for one in found:
                if one.entry is not None:
                    one.settled, one.stored = unchanged.get(one.id), known.get(one.id)
                    one.recipe = recipe_of(store.info)
                    if one.settled is None:
                        one.task = stages.create_task(self._prepare(store.info, one.entry))
                await arrivals.put(one)
            after = items[-1].seq
        await arrivals.put(None)

    async def _prepare(self, info: CorpusInfo, entry: Entry) -> Prepared | ApiError:
        return (await self._ingest.prepared(info, [entry]))[0]

    async def _group(
        self,
        corpus: str,
        arrivals: asyncio.Queue[_Arrival | None],
        groups: asyncio.Queue[tuple[_Group, asyncio.Task[Ready]] | None],
        stages: asyncio.TaskGroup,
    ) -> None:
        group = _Group()
        while (arrival := await arrivals.get()) is not None:
            await group.add(arrival)
            if group.full:
                await groups.put((group, stages.create_task(self._ready(corpus, group))))
                group = _Group()
        if group.arrivals:
            await groups.put((group, stages.create_task(self._ready(corpus, group))))
        await groups.put(None)

    async def _ready(self, corpus: str, group: _Group) -> Ready:
        """A group with its vectors; all over again where a reindex came in between."""
        store = self._ingest.live(corpus)
        recipe = recipe_of(store.info)
        if any(one.recipe != recipe for one in group.arrivals if one.entry is not None):
            return await self._ingest.ready(store, group.entries, embed=self._librarian.vectors)
        left = [one.entry for one in group.arrivals if one.task is not None and one.entry]
        return await self._ingest.with_vectors(
            store,
            left,
            group.prepared,
            {one.id: one.settled for one in group.arrivals if one.entry and one.settled},
            {one.id: one.stored for one in group.arrivals if one.entry and one.stored},
            self._librarian.vectors,
        )

    async def _write(
        self, run: Run, groups: asyncio.Queue[tuple[_Group, asyncio.Task[Ready]] | None]
    ) -> None:
        while (found := await groups.get()) is not None:
            group, making = found
            made = await making
            ready, written = await self._ingest.written(
                run.job.corpus,
                group.entries,
                made,
                embed=self._librarian.vectors,
                assure=run.assure,
            )
            done: dict[str, Outcome] = {one.id: one for one in written.results}
            done |= ready.settled
            verdicts = [
                _verdict(one.settled if one.entry is None else done[one.id], one.id)
                for one in group.arrivals
            ]
            await run.checkpoint(
                {"after": group.arrivals[-1].seq},
                documents=len(verdicts),
                chunks=sum(len(one.chunks) for one in ready.documents),
                bytes=sum(one.size for one in group.arrivals),
                verdicts=verdicts,
            )


def _arrived(items: Sequence[Item]) -> list[_Arrival]:
    return [_arrival(item) for item in items]


def _arrival(item: Item) -> _Arrival:
    """An item as a document, or as the reason why it is none."""
    size = len(item.data)
    match item.options:
        case {"kind": "document"}:
            sent = document_or_unfit(orjson.loads(item.data))
            if isinstance(sent, Unfit):
                error = sent.error()
                message = f"{item.name}: {error.message}"
                name = sent.id or item.name
                refused = Refused(name, ApiError(error.status, error.code, message))
                return _Arrival(item.seq, name, size, settled=refused)
            try:
                return _Arrival(item.seq, item.name, size, Entry(source_document(sent), "text"))
            except ApiError as error:
                return _Arrival(item.seq, sent.id, size, settled=Refused(sent.id, error))
        case {"kind": "file", "labels": labels}:
            about = FileLabels.model_validate(labels)
            source = SourceFile(
                id=about.id or about.file,
                name=item.name,
                data=item.data,
                title=about.title,
                url=about.url,
                format=about.format,
                metadata=about.metadata,
                readers=None if about.readers is None else tuple(about.readers),
            )
            return _Arrival(item.seq, item.name, size, Entry(source, "the file"))
        case {"code": code, "reason": reason}:
            refused = Refused(item.name, ApiError(422, code, reason))
            return _Arrival(item.seq, item.name, size, settled=refused)
    raise AssertionError(f"an item of no known kind: {item.options}")


def _verdict(outcome: Outcome | None, name: str) -> Verdict:
    if isinstance(outcome, Refused):
        return Verdict(name, "failed", 0, outcome.error.code, outcome.error.message)
    assert outcome is not None  # noqa: S101 - for the type checker: each has one by now
    return Verdict(outcome.id, outcome.status, outcome.chunks)
