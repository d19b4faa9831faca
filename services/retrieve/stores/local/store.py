"""A corpus in a folder of this machine: SQLite is the truth, FAISS and Tantivy follow it.

A folder is a generation of a corpus (layout.py):

corpus.db    documents, chunks, vectors (dense and sparse), settings
lexical/     the word index, built anew where it does not agree with the database; where that takes
             its time, in the background
dense/       of a large corpus the vector index, as far as it had come when it was saved
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from services.retrieve.stores.base import (
    EVERYTHING,
    ChunkRecord,
    Described,
    DocumentResult,
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
from services.retrieve.stores.figures import Figures
from services.retrieve.stores.fitting import require_fitting
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense_gpu import Place
from services.retrieve.stores.local.following import Following
from services.retrieve.stores.local.meta import preference_rows
from services.retrieve.stores.local.scopes import Keys
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import Finding, RetiredError, Revision
from shared.errors import ApiError


class LocalStore:
    """A `CorpusStore` (see services/retrieve/stores/base.py) in a folder."""

    def __init__(self, folder: Path, database: Database, place: Place | None = None) -> None:
        """Use `LocalStore.open`."""
        self.folder = folder
        self._database = database
        self._writing = threading.Lock()
        with self._writing:  # what is built in the background is handed over to what is whole
            self._following = Following(folder, database, place, self._writing)
        self.retired = False
        self.closed = False

    @classmethod
    def open(cls, folder: Path, place: Place | None = None) -> "LocalStore":
        """Open a generation of a corpus and bring its indexes into agreement with its database.

        place: the GPU that searches its vectors, None for the processor.
        Raises ApiError 500 where the database is missing, damaged or of a newer version.
        """
        database = Database.open(folder)
        try:
            return cls(folder, database, place)
        except BaseException:
            database.close()
            raise

    @property
    def info(self) -> CorpusInfo:
        """The corpus's settings, stamp and counts."""
        return self._following.info

    @property
    def dense_method(self) -> str:
        """See `CorpusStore.dense_method`."""
        return self._following.indexes.dense.method

    @property
    def rebuilding(self) -> Mapping[str, float]:
        """See `Rebuilt.rebuilding`."""
        return self._following.rebuilding

    def bm25(self, query: str, limit: int, scope: Scope = EVERYTHING) -> list[tuple[int, float]]:
        """See `CorpusStore.bm25`."""
        return self._following.within(
            scope, lambda allowed: self._following.lexical.search(query, limit, allowed)
        )

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.bm25_scores`."""
        return self._following.lexical.scores(query, keys)

    def dense(
        self, vector: Vector, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """See `CorpusStore.dense`."""
        return self._following.within(
            scope, lambda allowed: self._following.indexes.dense.search(vector, limit, allowed)
        )

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.dense_scores`."""
        return self._following.indexes.dense.scores(vector, keys)

    def sparse(
        self, vector: Sparse, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """See `CorpusStore.sparse`."""
        return self._following.within(
            scope, lambda allowed: self._following.sparse.search(vector, limit, allowed)
        )

    def sparse_scores(self, vector: Sparse, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.sparse_scores`."""
        return self._following.sparse.scores(vector, keys)

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """See `CorpusStore.fetch`."""
        return self._database.fetch(keys)

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """See `CorpusStore.vectors`."""
        return self._following.indexes.dense.vectors(keys)

    def described(self, keys: Sequence[int]) -> dict[int, Described]:
        """See `CorpusStore.described`."""
        return self._database.described(keys)

    def neighbours(
        self, keys: Sequence[int], reach: int | None
    ) -> dict[int, Sequence[ChunkRecord]]:
        """See `CorpusStore.neighbours`."""
        return self._database.neighbours(keys, reach)

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        """See `CorpusStore.extents`."""
        return self._database.extents(keys, reach)

    def in_scope(self, keys: Sequence[int], scope: Scope) -> set[int]:
        """See `CorpusStore.in_scope`."""

        def found(allowed: Keys | None) -> set[int]:
            every = self._following.indexes.scopes.keys if allowed is None else allowed
            wanted = np.asarray(keys, np.int64)
            places = np.searchsorted(every, wanted)
            low = places < len(every)
            return set(wanted[low][every[places[low]] == wanted[low]].tolist())

        return self._following.within(scope, found)

    def keys_of(self, document_id: str) -> list[int]:
        """See `CorpusStore.keys_of`."""
        return self._database.keys_of(document_id)

    def terms(self, text: str) -> list[str]:
        """See `CorpusStore.terms`."""
        return self._following.terms(text)

    def bodies(self) -> Iterator[tuple[int, str]]:
        """See `CorpusStore.bodies`."""
        return self._database.bodies()

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """See `CorpusStore.known`."""
        return self._database.known(document_ids)

    def documents(
        self, limit: int, after: str | None, scope: Scope = EVERYTHING, prefix: str = ""
    ) -> list[DocumentSummary]:
        """See `CorpusStore.documents`."""
        return self._database.documents(limit, after, scope, prefix)

    def document(self, document_id: str, scope: Scope = EVERYTHING) -> StoredDocument | None:
        """See `CorpusStore.document`."""
        return self._database.document(document_id, scope)

    def revisions(self) -> Iterator[Revision]:
        """See `CorpusStore.revisions`."""
        return self._database.revisions()

    def whole(self, document_ids: Sequence[str]) -> dict[str, NewDocument]:
        """See `CorpusStore.whole`."""
        return self._database.whole(document_ids)

    def figures(self) -> Figures:
        """See `Counted.figures`."""
        return self._database.figures()

    def verify(self) -> Iterator[Finding]:
        """See `CorpusStore.verify`."""
        yield from self._database.findings()
        with self._writing:
            try:
                found = list(self._following.findings())
            except ApiError as error:  # of a database that can't be read there is no more to say
                found = [Finding(str(self.folder), error.message)]
        yield from found

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """See `CorpusStore.write`."""
        for document in documents:
            require_fitting(document, self.info)
        with self._taking_writes():
            results = []
            if documents:
                with self._following.changing(documents) as change:
                    for document in documents:
                        status: Literal["created", "replaced"] = (
                            "replaced" if change.replace(document) else "created"
                        )
                        results.append(DocumentResult(document.id, status, len(document.chunks)))
            info = self.info
            return WriteResult(results, info.documents, info.chunks, info.writes)

    def delete(self, document_ids: Sequence[str]) -> list[str]:
        """See `CorpusStore.delete`."""
        with self._taking_writes():
            known = self._database.known(document_ids)
            there = [id_ for id_ in dict.fromkeys(document_ids) if id_ in known]
            if there:
                with self._following.changing([]) as change:
                    for document_id in there:
                        change.delete(document_id)
            return there

    def configure(self, preferences: Preferences) -> CorpusInfo:
        """See `CorpusStore.configure`."""
        with self._taking_writes():
            self._note(preference_rows(preferences))
            return self.info

    def succeed(self, old: CorpusInfo) -> None:
        """Go on from the generation that this one takes the place of: its count of writes never
        falls, and the number of generations rises. Raises ApiError 507."""
        with self._taking_writes():
            writes = max(self.info.writes, old.writes + 1)
            number = max(self.info.generation, old.generation + 1)
            self._note({"writes": str(writes), "generation": str(number)})

    def renumber(self, generation: int) -> None:
        """Give this generation another number. Raises ApiError 507."""
        with self._taking_writes():
            self._note({"generation": str(generation)})

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """See `CorpusStore.sealed`."""
        with self._taking_writes():
            yield
            self.retired = True
            self._following.rest()

    def close(self, *, keep: bool = True) -> None:
        """See `CorpusStore.close`."""
        with self._writing:
            self.closed = True
            try:
                self._following.close(keep=keep)
            finally:
                self._database.close()

    @contextmanager
    def _taking_writes(self) -> Iterator[None]:
        """One write at a time, and none once the store is retired."""
        with self._writing:
            if self.retired:
                raise RetiredError(
                    f"generation {self.info.generation} of corpus '{self.info.name}' is retired"
                )
            yield

    def _note(self, rows: dict[str, str]) -> None:
        with self._database.transaction() as change:
            change.note(rows)
        self._following.refresh()
