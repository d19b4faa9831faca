"""The desk: what a caller may ask of the corpora, whatever the API it asks through.

Every method works for the principal of the current request. A corpus that the caller may not read
is answered exactly like one that is not there, so that nobody learns its name.
"""

import asyncio
from collections.abc import Sequence

from prometheus_client import Counter, Histogram

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.protocol import (
    RetrieveRequest,
    RetrieveResponse,
    WhyNotRequest,
    WhyNotResponse,
)
from services.retrieve.search import pipeline
from services.retrieve.search.candidates import Shelves
from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.search.pipeline import Staff
from services.retrieve.search.watch import Watch
from services.retrieve.search.why_not import why_not
from services.retrieve.stores.base import CorpusStore, DocumentSummary, Scope, StoredDocument
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.filters import Filter, parse_filter
from shared.context import current
from shared.errors import ApiError

STAGE_SECONDS = Histogram(
    "refdesk_retrieve_stage_seconds",
    "Time of a stage of a search, of searches in which it ran",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
DEGRADED = Counter("refdesk_retrieve_degraded", "Searches answered without a stage", ["stage"])
DROPPED = Counter("refdesk_retrieve_dropped", "Passages left out of an answer", ["reason"])


class Desk:
    """Reading from the corpora. Used from one event loop."""

    def __init__(self, catalog: Catalog, staff: Staff, exact: ExactArm) -> None:
        self._catalog = catalog
        self._staff = staff
        self._exact = exact

    def corpora(self) -> list[CorpusInfo]:
        """The corpora that the caller may read, by name."""
        return list(filter(_may_read, self._catalog.list()))

    def corpus(self, name: str) -> CorpusInfo:
        """A corpus. Raises ApiError as `store`."""
        return self.store(name).info

    def store(self, name: str) -> CorpusStore:
        """An open corpus. Raises ApiError 404 where there is none of that name for the caller, 500
        where it is damaged."""
        if not current().principal.may_read(name):
            raise _no_corpus(name, self._readable())
        try:
            store = self._catalog.get(name)
        except ApiError as error:
            if error.status != 404:
                raise
            raise _no_corpus(name, self._readable()) from None
        if not _may_read(store.info):
            raise _no_corpus(name, self._readable())
        return store

    def stores(self, names: Sequence[str]) -> dict[str, CorpusStore]:
        """Several of them. Raises ApiError as `store`, the first that is at fault in `param`."""
        stores = {}
        for place, name in enumerate(names):
            try:
                stores[name] = self.store(name)
            except ApiError as error:
                where = f"corpora.{place}"
                raise ApiError(error.status, error.code, error.message, param=where) from None
        return stores

    async def documents(
        self,
        corpus: str,
        limit: int,
        after: str | None,
        prefix: str = "",
        condition: Filter | None = None,
    ) -> list[DocumentSummary]:
        """At most `limit` documents in the order of their ids: those after `after` whose ids begin
        with `prefix` and whose metadata passes the filter. Raises ApiError as `store`."""
        store, scope = self.store(corpus), Scope(condition, current().principal.readers)
        return await asyncio.to_thread(store.documents, limit, after, scope, prefix)

    async def document(self, corpus: str, document_id: str) -> StoredDocument:
        """A whole document. Raises ApiError as `store`, and 404 where there is no such document for
        the caller."""
        store, scope = self.store(corpus), Scope(readers=current().principal.readers)
        found = await asyncio.to_thread(store.document, document_id, scope)
        if found is None:
            raise no_document(corpus, document_id)
        return found

    async def retrieve(self, request: RetrieveRequest) -> RetrieveResponse:
        """The passages that answer a question. Raises ApiError as `store` and the pipeline do."""
        found = await pipeline.retrieve(
            request, self._shelves(request), self._staff, current().deadline
        )
        _record(found)
        return found

    async def why_not(self, request: WhyNotRequest) -> WhyNotResponse:
        """How far a document came in a search. Raises ApiError as `retrieve`, and 404 where none of
        the corpora has such a document for the caller."""
        shelves = self._shelves(request)
        permitted = Scope(readers=current().principal.readers)

        def there() -> bool:
            stores = shelves.stores.values()
            return any(
                store.in_scope(store.keys_of(request.document_id), permitted) for store in stores
            )

        if not await asyncio.to_thread(there):
            raise no_document(", ".join(request.corpora), request.document_id)
        done = await pipeline.search(request, shelves, self._staff, current().deadline, Watch())
        told = await asyncio.to_thread(why_not, done, shelves, request.document_id)
        if told is None:  # it went while the search ran
            raise no_document(", ".join(request.corpora), request.document_id)
        return told

    def _shelves(self, request: RetrieveRequest) -> Shelves:
        scope = Scope(parse_filter(request.filter), current().principal.readers)
        return Shelves(self.stores(request.corpora), scope, self._exact)

    def _readable(self) -> list[str]:
        """What the caller may read. Of a damaged corpus nobody knows for whom it is."""
        principal = current().principal
        names = {info.name for info in self.corpora()}
        if principal.readers is None:
            names.update(filter(principal.may_read, self._catalog.damaged))
        return sorted(names)


def _may_read(info: CorpusInfo) -> bool:
    """Whether the caller's key names the corpus, and the corpus the caller, if it names anyone."""
    principal = current().principal
    opened = Scope(readers=principal.readers).sees({}, info.readers)
    return opened and principal.may_read(info.name)


def no_document(corpus: str, document_id: str) -> ApiError:
    """The error for a document that is not there, or not for the caller."""
    return ApiError(
        404, "document_not_found", f"there is no document '{document_id}' in corpus '{corpus}'"
    )


def _no_corpus(name: str, readable: Sequence[str]) -> ApiError:
    there = f"there is: {', '.join(readable)}" if readable else "there is none yet"
    return ApiError(
        404,
        "corpus_not_found",
        f"there is no corpus '{name}'; {there}; PUT /corpora/NAME makes one, and so does "
        "`refdesk ingest`",
    )


def _record(found: RetrieveResponse) -> None:
    for stage, milliseconds in found.timings_ms.items():
        if milliseconds:
            STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
    for stage in found.degraded:
        DEGRADED.labels(stage).inc()
    for drop in found.dropped:
        DROPPED.labels(drop.reason).inc()
