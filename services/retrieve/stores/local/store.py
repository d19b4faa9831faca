"""A corpus in a folder of this machine: SQLite is the truth, FAISS and Tantivy follow it.

<corpus>/corpus.db    documents, chunks, vectors (dense and sparse), settings
<corpus>/lexical/     the word index, built anew where it does not agree with the database
<corpus>/dense/       of a large corpus the vector index, as far as it had come when it was saved
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from services.retrieve.stores.base import (
    EVERYTHING,
    ChunkRecord,
    CorpusInfo,
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
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_gpu import Place
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.indexes import Indexes
from services.retrieve.stores.local.lexical import LexicalDamagedError, LexicalIndex
from services.retrieve.stores.local.scopes import Keys, Scopes
from services.retrieve.stores.local.sparse import SparseIndex
from services.retrieve.stores.local.transaction import Transaction, require_fitting
from services.retrieve.stores.sparse_vector import Sparse
from shared.errors import ApiError
from shared.telemetry import get_logger

_LEXICAL, _DENSE = "lexical", "dense"
_Found = TypeVar("_Found")

log = get_logger(__name__)


class LocalStore:
    """A `CorpusStore` (see services/retrieve/stores/base.py) in a folder."""

    def __init__(self, folder: Path, database: Database, place: Place | None = None) -> None:
        """Use `LocalStore.open`."""
        self._folder = folder
        self._database = database
        self._place = place
        self._info = database.info()
        self._writing = threading.Lock()
        # Held while database and indexes are of different states; the count is odd then.
        self._swapping = threading.RLock()
        self._swaps = 0
        self._refused = False  # a write, since the word index was opened
        self._followed: Indexes | None = self._open_indexes()

    @classmethod
    def open(cls, folder: Path, place: Place | None = None) -> "LocalStore":
        """Open a corpus and bring its indexes into agreement with its database.

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
        return self._info

    @property
    def dense_method(self) -> str:
        """See `CorpusStore.dense_method`."""
        return self._indexes.dense.method

    def bm25(self, query: str, limit: int, scope: Scope = EVERYTHING) -> list[tuple[int, float]]:
        """See `CorpusStore.bm25`."""
        return self._within(
            scope, lambda allowed: self._indexes.lexical.search(query, limit, allowed)
        )

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.bm25_scores`."""
        return self._indexes.lexical.scores(query, keys)

    def dense(
        self, vector: Vector, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """See `CorpusStore.dense`."""
        return self._within(
            scope, lambda allowed: self._indexes.dense.search(vector, limit, allowed)
        )

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.dense_scores`."""
        return self._indexes.dense.scores(vector, keys)

    def sparse(
        self, vector: Sparse, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """See `CorpusStore.sparse`."""
        return self._within(scope, lambda allowed: self._sparse.search(vector, limit, allowed))

    def sparse_scores(self, vector: Sparse, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.sparse_scores`."""
        return self._sparse.scores(vector, keys)

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """See `CorpusStore.fetch`."""
        return self._database.fetch(keys)

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """See `CorpusStore.vectors`."""
        return self._indexes.dense.vectors(keys)

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
            every = self._indexes.scopes.keys if allowed is None else allowed
            wanted = np.asarray(keys, np.int64)
            places = np.searchsorted(every, wanted)
            low = places < len(every)
            return set(wanted[low][every[places[low]] == wanted[low]].tolist())

        return self._within(scope, found)

    def keys_of(self, document_id: str) -> list[int]:
        """See `CorpusStore.keys_of`."""
        return self._database.keys_of(document_id)

    def terms(self, text: str) -> list[str]:
        """See `CorpusStore.terms`."""
        return self._indexes.lexical.terms(text)

    def bodies(self) -> Iterator[tuple[int, str]]:
        """See `CorpusStore.bodies`."""
        return self._database.bodies()

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """See `CorpusStore.known`."""
        return self._database.known(document_ids)

    def documents(
        self, limit: int, after: str | None, scope: Scope = EVERYTHING
    ) -> list[DocumentSummary]:
        """See `CorpusStore.documents`."""
        return self._database.documents(limit, after, scope)

    def document(self, document_id: str, scope: Scope = EVERYTHING) -> StoredDocument | None:
        """See `CorpusStore.document`."""
        return self._database.document(document_id, scope)

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """See `CorpusStore.write`."""
        for document in documents:
            require_fitting(document, self._info)
        with self._writing:
            results = []
            if documents:
                with self._changing(documents) as change:
                    for document in documents:
                        status: Literal["created", "replaced"] = (
                            "replaced" if change.replace(document) else "created"
                        )
                        results.append(DocumentResult(document.id, status, len(document.chunks)))
            info = self._info
            return WriteResult(results, info.documents, info.chunks, info.writes)

    def delete(self, document_id: str) -> bool:
        """See `CorpusStore.delete`."""
        with self._writing:
            if not self._database.known([document_id]):
                return False
            with self._changing([]) as change:
                change.delete(document_id)
            return True

    def close(self, *, keep: bool = True) -> None:
        """See `CorpusStore.close`."""
        with self._writing:
            try:
                if self._followed is not None:
                    self._followed.close(keep=keep)
            finally:
                self._database.close()

    @contextmanager
    def _changing(self, added: Sequence[NewDocument]) -> Iterator[Transaction]:
        """One write: the block changes the database, the indexes follow; all of it or nothing.

        The word index is committed on disk just before the database. Should the process die between
        the two, the stamps differ and the index is built anew on the next open; should either be
        refused by the disk, neither has changed. `added` are the documents that the block writes.
        """
        if self._refused:
            # What the word index took in without the database must not come up in the next commit.
            self._followed = replace(self._indexes, lexical=self._open_lexical())
            self._refused = False
        lexical = self._indexes.lexical
        with ExitStack() as window:
            try:
                with self._database.transaction() as change:
                    yield change
                    try:
                        stamp = lexical.write(change.removed, change.bodies())
                    except (OSError, ValueError) as error:
                        raise write_failed(error, self._folder / _LEXICAL) from error
                    change.finish(stamp)
                    window.enter_context(self._swap())
            except BaseException:
                self._refused = True
                lexical.close()
                raise
            # Not in the handler of what went wrong, which keeps hold of the indexes of before.
            if not self._followed_by_indexes(change, added):
                self._open_anew()
        if self._followed is not None:
            self._followed.tidy(self._info.name)

    @property
    def _indexes(self) -> Indexes:
        """Those to search. Raises ApiError 500 where there are none that follow the database."""
        found = self._followed
        if found is None:
            with self._swapping:  # they may be on their way
                found = self._followed
        if found is None:
            raise ApiError(
                500,
                "corpus_damaged",
                f"the indexes of {self._database.path} can't follow it (see the log of retrieve); "
                "all that was stored is in it: restart retrieve, which builds them anew",
            )
        return found

    @property
    def _sparse(self) -> SparseIndex:
        """Raises ValueError where the corpus has no sparse vectors."""
        found = self._indexes.sparse
        if found is None:
            raise ValueError(f"corpus {self._info.name} has no sparse vectors")
        return found

    def _followed_by_indexes(self, change: Transaction, added: Sequence[NewDocument]) -> bool:
        """Whether the indexes could follow a write that is committed."""
        indexes = self._indexes
        try:
            none = np.empty((0, self._info.dimension), np.float32)
            vectors = np.concatenate([none, *(document.vectors for document in added)])
            indexes.dense.change(change.removed, change.added, vectors)
            if indexes.sparse is not None:
                sparse = [one for document in added for one in document.sparse or ()]
                indexes.sparse.change(change.removed, change.added, sparse)
            indexes.lexical.reload()
            indexes.scopes.change(change.removed, change.added, change.owners)
            self._info = self._database.info()
        except Exception as error:  # it is stored, whatever it was
            log.exception("indexes_rebuilt", corpus=self._info.name, reason=str(error))
            return False
        return True

    def _open_anew(self) -> None:
        """Make all indexes from the database; where that fails nothing is searched, as what there
        was would be wrong. Searches wait meanwhile: two of all might be too large."""
        try:
            indexes, self._followed = self._indexes, None
            indexes.close()
            del indexes
            self._info = self._database.info()
            self._followed = self._open_indexes()
        except Exception as error:
            log.exception("indexes_failed", corpus=self._info.name, reason=str(error))

    def _open_indexes(self) -> Indexes:
        """The indexes of the database's last commit."""
        keys, vectors = self._database.vectors(self._info)
        dense = DenseIndex(
            self._info.dimension,
            keys,
            vectors,
            last_key=self._database.last_key(),
            folder=self._folder / _DENSE,
            place=self._place,
        )
        try:
            sparse = None
            if self._info.sparse:
                sparse = SparseIndex(self._database.sparse_vectors(self._info))
            return Indexes(dense, sparse, self._open_lexical(), Scopes(self._database))
        except BaseException:
            dense.close()
            raise

    @contextmanager
    def _swap(self) -> Iterator[None]:
        """From just before the database's commit until the indexes have followed."""
        with self._swapping:
            self._swaps += 1
            try:
                yield
            finally:
                self._swaps += 1

    def _within(self, scope: Scope, search: Callable[[Keys | None], _Found]) -> _Found:
        """What `search` finds among the keys of a scope, both of one state of the corpus.

        Keys of one state in an index of another would leave out a document that is being replaced,
        or let through one that just came. So a search that met a write is done once more, and no
        write can come between then.
        """
        if scope == EVERYTHING:
            return search(None)
        before = self._swaps
        if before % 2 == 0:
            found = search(self._indexes.scopes.allowed(scope))
            if self._swaps == before:
                return found
        with self._swapping:
            return search(self._indexes.scopes.allowed(scope))

    def _open_lexical(self) -> LexicalIndex:
        """The word index of the database's last commit, built anew unless it is there and sound."""
        folder, language, info = self._folder / _LEXICAL, self._info.language, self._info
        try:
            index = LexicalIndex.open(folder, language, self._database.lexical_stamp())
            if len(index) == info.chunks:
                return index
            reason = f"it holds {len(index)} chunks of {info.chunks}"
        except LexicalDamagedError as error:
            reason = str(error)
        if info.writes > 0:
            log.warning("word_index_rebuilt", corpus=info.name, reason=reason)
        try:
            index = LexicalIndex.build(folder, language, self._database.bodies())
        except (OSError, ValueError) as error:
            # A full disk. Searching goes on from memory; a later open tries the disk again. The
            # reason says it all: a traceback would add nothing.
            log.error("word_index_in_memory", corpus=info.name, reason=str(error))  # noqa: TRY400 - the reason says it all
            return LexicalIndex.build(None, language, self._database.bodies())
        try:
            with self._database.transaction() as change:
                change.note_lexical(index.stamp)
        except ApiError as error:
            # Without the note it is built once more on the next open.
            log.warning("word_index_not_noted", corpus=info.name, reason=error.message)
        return index
