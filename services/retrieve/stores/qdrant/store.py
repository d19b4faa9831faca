"""A corpus in Qdrant: the catalogue says what is live, a collection has the points.

Chunks with their vectors and words are points of the generation's collection; documents are rows of
the catalogue (tables.py), which one transaction changes: that is what makes a write atomic for
every reader and every replica. writer.py has the order of a write, search.py what a search does
about points that are not live.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.base import (
    EVERYTHING,
    ChunkRecord,
    Described,
    DocumentSummary,
    Extent,
    KnownDocument,
    NewDocument,
    Scope,
    StoredDocument,
    Vector,
    WriteResult,
)
from services.retrieve.stores.corpus import CorpusInfo, Preferences
from services.retrieve.stores.fitting import require_fitting
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.calibration import calibrate
from services.retrieve.stores.qdrant.check import check
from services.retrieve.stores.qdrant.points import DENSE, SPARSE, WORDS, Points, keys_of
from services.retrieve.stores.qdrant.reader import Reader
from services.retrieve.stores.qdrant.rows import Live
from services.retrieve.stores.qdrant.search import Wanted, search
from services.retrieve.stores.qdrant.standing import Standing
from services.retrieve.stores.qdrant.tables import CORPORA, DOCUMENTS
from services.retrieve.stores.qdrant.words import Words
from services.retrieve.stores.qdrant.writer import Writer
from services.retrieve.stores.remote import Hits
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import INDEX_REBUILDING, Finding, RetiredError, Revision
from shared.errors import ApiError

EXACT = 10_000  # chunks up to which vectors are compared one by one
_D = DOCUMENTS.c


class QdrantStore:
    """A `CorpusStore` (see services/retrieve/stores/base.py) over one generation."""

    def __init__(
        self,
        database: CatalogueDatabase,
        points: Points,
        generation: int,
        state: rows.State,
        *,
        patience_s: float = 30.0,
    ) -> None:
        """Use `QdrantEngine`. patience_s: how long a write waits for another process's swap."""
        self._database = database
        self.generation = generation  # the id of its row, not its number in the corpus
        self._name = state.info.name
        self.standing = Standing(database, generation, state)
        self._points = points
        self._words = Words(state.info.language)
        self._reader = Reader(database, points, generation)
        self._writer = Writer(
            database, points, self._words, generation, self._name, patience_s=patience_s
        )
        self._writing = threading.RLock()
        self._reading = 0  # of all points: none may go meanwhile
        self._counting = threading.Lock()
        self._closed = self._retired = False

    @property
    def info(self) -> CorpusInfo:
        """The corpus's settings, stamp and counts; what other processes wrote is in it after
        `QdrantEngine.look`, a search or a write."""
        return self.standing.info

    @property
    def writable(self) -> bool:
        """Whether neither `close` nor the end of a seal keeps it from being written."""
        return not self._closed and not self._retired

    @property
    def rebuilding(self) -> Mapping[str, float]:
        """See `state.Rebuilt`. Words that another analyser made wait for a reindex."""
        info = self.info
        return {"bm25": 0.0} if info.documents and info.analyser != ANALYSER else {}

    @property
    def dense_method(self) -> str:
        """See `CorpusStore.dense_method`."""
        return "exact" if self._exact else "hnsw"

    def lists(
        self,
        limit: int,
        scope: Scope = EVERYTHING,
        *,
        words: str | None = None,
        vector: Vector | None = None,
        sparse: Sparse | None = None,
    ) -> tuple[Hits, Hits, Hits]:
        """What `bm25`, `dense` and `sparse` give for those of the three that are there, in one
        request to Qdrant; an empty list for each that is not."""
        self._require_open()
        wanted: dict[str, Wanted] = {}
        if words is not None:
            self._require_words()
            wanted[WORDS] = Wanted(WORDS, self._words.of_query(words), limit)
        if vector is not None:
            wanted[DENSE] = Wanted(DENSE, self._comparable(vector), limit)
        if sparse is not None:
            self._require_sparse()
            wanted[SPARSE] = Wanted(SPARSE, _query(sparse), limit)
        try:
            found = search(
                self._points,
                list(wanted.values()),
                scope,
                self.standing.look,
                self.info.writes,
                exact=self._exact,
            )
        except ApiError:
            self.standing.read()  # says so where another process deleted the corpus
            raise
        if words is not None:
            self._require_words()  # of another version one may have written during the search
        by_arm = dict(zip(wanted, found, strict=True))
        return by_arm.get(WORDS, []), by_arm.get(DENSE, []), by_arm.get(SPARSE, [])

    def bm25(self, query: str, limit: int, scope: Scope = EVERYTHING) -> Hits:
        """See `CorpusStore.bm25`."""
        return self.lists(limit, scope, words=query)[0]

    def dense(self, vector: Vector, limit: int, scope: Scope = EVERYTHING) -> Hits:
        """See `CorpusStore.dense`."""
        return self.lists(limit, scope, vector=vector)[1]

    def sparse(self, vector: Sparse, limit: int, scope: Scope = EVERYTHING) -> Hits:
        """See `CorpusStore.sparse`."""
        return self.lists(limit, scope, sparse=vector)[2]

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.bm25_scores`."""
        self._require_words()
        live = self._live(keys)
        weights = self._words.of_query(query)
        scores = self._points.scores(WORDS, weights, list(live)) if len(weights[0]) else {}
        return {key: scores.get(key, 0.0) for key in live}

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.dense_scores`."""
        query = self._comparable(vector)
        return self._points.scores(DENSE, query, list(self._live(keys)))

    def sparse_scores(self, vector: Sparse, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.sparse_scores`."""
        self._require_sparse()
        live = self._live(keys)
        scores = (
            self._points.scores(SPARSE, _query(vector), list(live)) if len(vector.tokens) else {}
        )
        return {key: scores.get(key, 0.0) for key in live}

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """See `CorpusStore.fetch`."""
        self._require_open()
        return self._reader.fetch(keys)

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """See `CorpusStore.vectors`."""
        self._require_open()
        return self._reader.vectors(keys)

    def described(self, keys: Sequence[int]) -> dict[int, Described]:
        """See `CorpusStore.described`."""
        live = self._live(keys)
        documents = {one.number: Described(one.metadata, one.updated_at) for one in live.values()}
        return {key: documents[one.number] for key, one in live.items()}

    def neighbours(
        self, keys: Sequence[int], reach: int | None
    ) -> dict[int, Sequence[ChunkRecord]]:
        """See `CorpusStore.neighbours`."""
        self._require_open()
        return self._reader.neighbours(keys, reach)

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        """See `CorpusStore.extents`."""
        self._require_open()
        return self._reader.extents(keys, reach)

    def in_scope(self, keys: Sequence[int], scope: Scope) -> set[int]:
        """See `CorpusStore.in_scope`."""
        return {key for key, owner in self._live(keys).items() if owner.within(scope)}

    def keys_of(self, document_id: str) -> list[int]:
        """See `CorpusStore.keys_of`."""
        row = self._of_ids([document_id], _D.number, _D.chunks).get(document_id)
        return [] if row is None else list(keys_of(row.number, row.chunks))

    def terms(self, text: str) -> list[str]:
        """See `CorpusStore.terms`."""
        return self._words.terms(text)

    def bodies(self) -> Iterator[tuple[int, str]]:
        """See `CorpusStore.bodies`. Raises ApiError 503 where another replica's write took away
        what was still to be read."""
        self._require_open()
        with self._keeping_points():
            yield from self._reader.bodies()

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """See `CorpusStore.known`."""
        found = self._of_ids(document_ids, _D.content_hash, _D.chunks)
        return {
            one: KnownDocument(found[one].content_hash, found[one].chunks)
            for one in document_ids
            if one in found
        }

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """See `CorpusStore.write`."""
        self._require_open()
        for document in documents:
            require_fitting(document, self.info)
        with self._writing:
            self._require_writable()
            results = self._writer.write(documents) if documents else []
            self._follow()
            info = self.info
            return WriteResult(results, info.documents, info.chunks, info.writes)

    def delete(self, document_ids: Sequence[str]) -> list[str]:
        """See `CorpusStore.delete`."""
        self._require_open()
        with self._writing:
            self._require_writable()
            gone = self._writer.delete(document_ids)
            if gone:
                self._follow()
            return gone

    def configure(self, preferences: Preferences) -> CorpusInfo:
        """See `CorpusStore.configure`."""
        self._require_open()
        with self._writing:
            self._require_writable()
            with self._database.begin() as connection:
                if not rows.state(connection, self.generation, self._name).writable:
                    raise RetiredError(f"corpus {self._name}: another generation is live")
                connection.execute(
                    sa.update(CORPORA)
                    .where(CORPORA.c.name == self._name)
                    .values(**rows.preferences_row(preferences))
                )
            return self.standing.read().info

    def documents(
        self, limit: int, after: str | None, scope: Scope = EVERYTHING, prefix: str = ""
    ) -> list[DocumentSummary]:
        """See `CorpusStore.documents`."""
        self._require_open()
        return self._reader.documents(limit, after, scope, prefix)

    def revisions(self) -> Iterator[Revision]:
        """See `CorpusStore.revisions`."""
        self._require_open()
        return self._reader.revisions()

    def whole(self, document_ids: Sequence[str]) -> dict[str, NewDocument]:
        """See `CorpusStore.whole`."""
        self._require_open()
        info = self.info
        return self._reader.whole(document_ids, info.dimension, sparse=info.sparse)

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """See `CorpusStore.sealed`; other processes' writes wait too (`Standing.sealed`)."""
        self._require_open()
        with self._writing:
            self._require_writable()
            with self.standing.sealed():
                yield
                self._retired = True

    def verify(self) -> Iterator[Finding]:
        """See `CorpusStore.verify`."""
        self._require_open()
        with self._writing:
            self._writer.sweep()
            yield from check(self._database, self._points, self._words, self.generation, self._name)

    def document(self, document_id: str, scope: Scope = EVERYTHING) -> StoredDocument | None:
        """See `CorpusStore.document`."""
        self._require_open()
        return self._reader.document(document_id, scope)

    def close(self, *, keep: bool = True) -> None:  # noqa: ARG002 - nothing is saved
        """See `CorpusStore.close`; connections are the engine's."""
        with self._writing:
            self._closed = True

    def sweep(self) -> None:
        """Remove what a process left that died; to be called when the generation is opened."""
        with self._writing:
            self._writer.sweep(own=self._database.exclusive)

    @property
    def _exact(self) -> bool:
        return self.info.chunks <= EXACT

    def _live(self, keys: Sequence[int]) -> dict[int, Live]:
        self._require_open()
        return self._reader.live(keys)

    def _of_ids(
        self, ids: Sequence[str], *columns: sa.Column[object]
    ) -> dict[str, sa.Row[tuple[object, ...]]]:
        self._require_open()
        with self._database.read() as connection:
            return rows.of_ids(connection, self.generation, ids, *columns)

    def _follow(self) -> None:
        """What is left to do once a write has taken effect; nothing of it can undo the write."""
        state = self.standing.read()
        calibrate(self._database, self._points, self._words, self.generation, state)
        with self._counting:
            idle = self._reading == 0
        if idle:
            self._writer.sweep()

    @contextmanager
    def _keeping_points(self) -> Iterator[None]:
        with self._counting:
            self._reading += 1
        try:
            yield
        finally:
            with self._counting:
                self._reading -= 1

    def _comparable(self, vector: Vector) -> Vector:
        dimension = self.info.dimension
        if vector.shape != (dimension,) or not np.isfinite(vector).all():
            raise ValueError(f"a vector of shape {vector.shape}, expected finite ({dimension},)")
        return vector

    def _require_open(self) -> None:
        if self._closed:
            raise ApiError(
                404, "corpus_not_found", f"corpus '{self._name}' was deleted or closed meanwhile"
            )

    def _require_writable(self) -> None:
        self._require_open()
        if self._retired:
            raise RetiredError(f"corpus {self._name}: another generation is live")

    def _require_words(self) -> None:
        if self.rebuilding:
            raise ApiError(
                503,
                INDEX_REBUILDING,
                f"words of corpus '{self._name}' were indexed by another version of refdesk, which "
                "cuts them otherwise: make them anew with `refdesk reindex`, which keeps the "
                'vectors; the arm "dense" finds meanwhile',
            )

    def _require_sparse(self) -> None:
        if not self.info.sparse:
            raise ValueError(f"corpus {self._name} has no sparse vectors")


def _query(sparse: Sparse) -> tuple[np.ndarray, np.ndarray]:
    return sparse.tokens.astype(np.uint32), sparse.weights
