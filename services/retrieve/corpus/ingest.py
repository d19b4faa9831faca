"""The way of documents into a corpus: see what changed, parse and chunk it, embed, write."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import CHUNKER
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.making import made_as
from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.prepare import Prepared, Recipe, Task, recipe_of
from services.retrieve.corpus.source import Source, hash_of
from services.retrieve.corpus.vectors import Embed, with_vectors
from services.retrieve.stores.base import (
    CorpusStore,
    DocumentResult,
    KnownDocument,
    NewDocument,
    WriteResult,
)
from services.retrieve.stores.corpus import CorpusInfo, CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError

# Pauses after which a write is tried again whose store a reindex retired meanwhile. The next one is
# there at once, and another swap as soon after it is not to be expected.
_SWAP_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)

Result = TypeVar("Result")
What = TypeVar("What")


@dataclass(frozen=True)
class Entry:
    """A document to store. param: what errors call its content."""

    source: Source
    param: str


@dataclass(frozen=True)
class Refused:
    """What was sent as a document and is none, and why."""

    id: str
    error: ApiError


Outcome = DocumentResult | Refused


@dataclass(frozen=True)
class Ingested:
    """The outcomes in the order of the request, and the corpus's counts after it."""

    results: Sequence[Outcome]
    documents: int
    chunks: int
    writes: int


@dataclass(frozen=True)
class Ready:
    """Documents that only need to be written, and the recipe that they were made by. inputs: what
    embed got for them. settled: of those that need no writing what became of them, by id."""

    recipe: Recipe
    documents: Sequence[NewDocument]
    inputs: Sequence[str]
    settled: Mapping[str, Outcome]


Refuse = Callable[[Mapping[str, Outcome]], None]  # by id what documents came to; may raise
Assure = Callable[[], Awaitable[None]]  # raises where whoever writes is not to write any more


class Ingest:
    """Writes to the corpora of a catalog. Requests may overlap; the last to write wins.

    fill: gets the chunks that were stored, None where the curator should first see them in a
    search.
    """

    def __init__(
        self,
        catalog: Catalog,
        librarian: Librarian,
        fill: TokenFill | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        self._catalog = catalog
        self._librarian = librarian
        self._fill = fill
        self._preparation = preparation or Preparation(librarian, None, None)
        # Writes wait here rather than in threads, of which there are few and searches need some.
        self._writing: dict[str, asyncio.Lock] = {}

    async def create(
        self,
        spec: CorpusSpec,
        *,
        embedder: str | None = None,
        dimension: int | None = None,
        chunker: str | None = None,
    ) -> tuple[CorpusInfo, bool]:
        """Make an empty corpus; False if it was there already.

        embedder, dimension, chunker: as for `made_as`; None asks for nothing of a corpus that is
        there, and embed is not needed for it. Raises what `made_as` and `Catalog.create` do, 503
        where embed does not answer.
        """
        there = next((one for one in self._catalog.list() if one.name == spec.name), None)
        if chunker is None:
            chunker = CHUNKER if there is None else there.chunker
        if there is None or embedder is not None or dimension is not None:
            cut = await made_as(
                spec,
                self._librarian,
                embedder=embedder or (there.model if there and embedder is None else ""),
                dimension=dimension,
                chunker=chunker,
                unless=None if there is None else there.stamp,
            )
        else:
            cut = replace(Cut.of(there), spec=spec, chunker=chunker)
        return await asyncio.to_thread(
            self._catalog.create, spec, cut.stamp, sparse=cut.sparse, chunker=chunker
        )

    async def write(
        self, corpus: str, documents: Sequence[Entry | Refused], *, atomic: bool = False
    ) -> Ingested:
        """Store documents (distinct ids); durable and searchable when it returns.

        A document that is stored as it is already is left alone ("unchanged"), one that can't be
        taken keeps out itself; atomic: it keeps out all, and its error is raised. Raises ApiError:
        404 for an unknown corpus, 409 `model_mismatch` or `chunker_mismatch` where the corpus was
        made with another model or a chunker that this refdesk does not have, 502 `bad_upstream`,
        503, 504, 507, and the first document's error where none can be taken. Nothing is written
        then.
        """
        recipe_of(self.live(corpus).info)
        entries = [one for one in documents if isinstance(one, Entry)]
        refused = [one for one in documents if isinstance(one, Refused)]
        if refused and (atomic or not entries):
            raise refused[0].error

        def refuse(settled: Mapping[str, Outcome]) -> None:
            found = [
                one if isinstance(one, Refused) else settled.get(one.source.id) for one in documents
            ]
            faults = [one for one in found if isinstance(one, Refused)]
            if faults and (atomic or len(faults) == len(documents)):
                raise faults[0].error

        ready, written = await self.written(corpus, entries, refuse=refuse)
        done: dict[str, Outcome] = {one.id: one for one in written.results}
        done |= ready.settled
        return Ingested(
            [one if isinstance(one, Refused) else done[one.source.id] for one in documents],
            written.documents,
            written.chunks,
            written.writes,
        )

    async def delete(self, corpus: str, document_ids: Sequence[str]) -> list[str]:
        """Remove documents, all or none; the ids of those that were there. Raises ApiError 404
        (corpus), 507."""
        for pause in _SWAP_PAUSES_S:
            await asyncio.sleep(pause)
            try:
                return await self._alone(corpus, self.live(corpus).delete, document_ids)
            except RetiredError:
                await self._overtaken()
                continue
        raise _swapping(corpus)

    async def changed(self, corpus: str, hashes: Mapping[str, str]) -> list[str]:
        """Those of the documents that are not stored with these content hashes, in order. Raises
        ApiError 404 (corpus)."""
        known = await asyncio.to_thread(self.live(corpus).known, list(hashes))
        return [
            document_id
            for document_id, found in hashes.items()
            if document_id not in known or known[document_id].content_hash != found
        ]

    def live(self, corpus: str) -> CorpusStore:
        """The store to write to. Raises ApiError 404 where there is none."""
        return self._catalog.get(corpus)

    async def written(
        self,
        corpus: str,
        entries: Sequence[Entry],
        ready: Ready | None = None,
        *,
        refuse: Refuse | None = None,
        embed: Embed | None = None,
        assure: Assure | None = None,
    ) -> tuple[Ready, WriteResult]:
        """Write documents, made ready here where they are not, or not for the generation that is
        live by now. refuse: looks at what they come to before, and may raise. assure: asked last
        of all before they are written, and may raise. Raises what `write` does."""
        for pause in _SWAP_PAUSES_S:
            await asyncio.sleep(pause)
            store = self.live(corpus)
            if ready is None or ready.recipe != recipe_of(store.info):
                ready = await self.ready(store, entries, embed=embed, refuse=refuse)
            try:
                written = await self._alone(corpus, store.write, ready.documents, assure)
            except RetiredError:
                await self._overtaken()
                continue
            if self._fill is not None:
                self._fill.add(ready.inputs)
            return ready, written
        raise _swapping(corpus)

    async def ready(
        self,
        store: CorpusStore,
        entries: Sequence[Entry],
        *,
        embed: Embed | None = None,
        refuse: Refuse | None = None,
    ) -> Ready:
        """All that comes before the write. embed: instead of the librarian's own way."""
        unchanged, known = await self.unchanged(store, entries)
        left = [one for one in entries if one.source.id not in unchanged]
        prepared = await self.prepared(store.info, left)
        if refuse is not None:
            refuse({**unchanged, **_faults(left, prepared)})
        ready = await self.with_vectors(store, left, prepared, unchanged, known, embed)
        if refuse is not None:
            refuse(ready.settled)
        return ready

    async def unchanged(
        self, store: CorpusStore, entries: Sequence[Entry]
    ) -> tuple[dict[str, Outcome], dict[str, KnownDocument]]:
        """The documents that are stored as they are, and the stored state of all that are there."""

        def compare() -> tuple[dict[str, Outcome], dict[str, KnownDocument]]:
            known = store.known([one.source.id for one in entries])
            same: dict[str, Outcome] = {}
            for one in entries:
                stored = known.get(one.source.id)
                if stored is not None and stored.content_hash == hash_of(one.source):
                    same[one.source.id] = DocumentResult(one.source.id, "unchanged", stored.chunks)
            return same, known

        return await asyncio.to_thread(compare)

    async def prepared(
        self, info: CorpusInfo, entries: Sequence[Entry]
    ) -> list[Prepared | ApiError]:
        """The documents parsed and chunked; of those that can't be, why."""
        recipe = recipe_of(info)
        tasks = [Task(one.source, recipe, one.param) for one in entries]
        return await self._preparation.prepared(tasks, info)

    async def with_vectors(
        self,
        store: CorpusStore,
        entries: Sequence[Entry],
        prepared: Sequence[Prepared | ApiError],
        settled: Mapping[str, Outcome],
        known: Mapping[str, KnownDocument],
        embed: Embed | None = None,
    ) -> Ready:
        """Prepared documents (of `entries`) with vectors, and what else became settled."""
        sound = [one for one in prepared if isinstance(one, Prepared)]
        counter = await self._preparation.counter(store.info)
        found = await with_vectors(sound, store, known, counter, embed or self._librarian.vectors)
        refused = {
            one.id: Refused(one.id, error)
            for one, error in zip(sound, found, strict=True)
            if isinstance(error, ApiError)
        }
        new = [one for one in found if isinstance(one, NewDocument)]
        taken = {one.id for one in new}
        return Ready(
            recipe_of(store.info),
            new,
            [text for one in sound if one.id in taken for text in one.inputs],
            {**settled, **_faults(entries, prepared), **refused},
        )

    async def _overtaken(self) -> None:
        """See what is live by now, if another process swapped it in."""
        await asyncio.to_thread(self._catalog.follow)

    async def _alone(
        self,
        corpus: str,
        change: Callable[[Sequence[What]], Result],
        what: Sequence[What],
        assure: Assure | None = None,
    ) -> Result:
        """Change a corpus in a thread, one change of it at a time."""
        async with self._writing.setdefault(corpus, asyncio.Lock()):
            if assure is not None:
                await assure()
            return await asyncio.to_thread(change, what)


def _faults(
    entries: Sequence[Entry], prepared: Sequence[Prepared | ApiError]
) -> dict[str, Outcome]:
    """Of those that could not be prepared, why."""
    return {
        entry.source.id: Refused(entry.source.id, error)
        for entry, error in zip(entries, prepared, strict=True)
        if isinstance(error, ApiError)
    }


def _swapping(corpus: str) -> ApiError:
    message = f"generations of corpus '{corpus}' follow each other too fast; send it again"
    return ApiError(503, "corpus_busy", message, headers={"Retry-After": "1"})
