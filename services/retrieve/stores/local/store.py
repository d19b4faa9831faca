"""A corpus in a folder of this machine: SQLite is the truth, FAISS and Tantivy follow it.

<corpus>/corpus.db    documents, chunks, vectors, settings
<corpus>/lexical/     the word index, built anew where it does not agree with the database
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from services.retrieve.stores.base import (
    ChunkRecord,
    CorpusInfo,
    DocumentResult,
    DocumentSummary,
    KnownDocument,
    NewDocument,
    StoredDocument,
    Vector,
    WriteResult,
)
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.lexical import LexicalDamagedError, LexicalIndex
from services.retrieve.stores.local.transaction import Transaction
from shared.errors import ApiError
from shared.telemetry import get_logger

_LEXICAL = "lexical"

log = get_logger(__name__)


class LocalStore:
    """A `CorpusStore` (see services/retrieve/stores/base.py) in a folder."""

    def __init__(self, folder: Path, database: Database) -> None:
        """Use `LocalStore.open`."""
        self._folder = folder
        self._database = database
        self._info = database.info()
        self._dense = DenseIndex(self._info.dimension)
        self._dense.change([], *database.vectors(self._info))
        self._lexical = self._open_lexical()
        self._writing = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> "LocalStore":
        """Open a corpus and bring its indexes into agreement with its database.

        Raises ApiError 500 where the database is missing, damaged or of a newer version.
        """
        database = Database.open(folder)
        try:
            return cls(folder, database)
        except BaseException:
            database.close()
            raise

    @property
    def info(self) -> CorpusInfo:
        """The corpus's settings, stamp, counts and generation."""
        return self._info

    def bm25(self, query: str, limit: int) -> list[tuple[int, float]]:
        """See `CorpusStore.bm25`."""
        return self._lexical.search(query, limit)

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.bm25_scores`."""
        return self._lexical.scores(query, keys)

    def dense(self, vector: Vector, limit: int) -> list[tuple[int, float]]:
        """See `CorpusStore.dense`."""
        return self._dense.search(vector, limit)

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """See `CorpusStore.dense_scores`."""
        return self._dense.scores(vector, keys)

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """See `CorpusStore.fetch`."""
        return self._database.fetch(keys)

    def query_terms(self, query: str) -> list[str]:
        """See `CorpusStore.query_terms`."""
        return list(dict.fromkeys(self._lexical.terms(query)))

    def text_terms(self, text: str) -> set[str]:
        """See `CorpusStore.text_terms`."""
        return set(self._lexical.terms(text))

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """See `CorpusStore.known`."""
        return self._database.known(document_ids)

    def documents(self, limit: int, after: str | None) -> list[DocumentSummary]:
        """See `CorpusStore.documents`."""
        return self._database.documents(limit, after)

    def document(self, document_id: str) -> StoredDocument | None:
        """See `CorpusStore.document`."""
        return self._database.document(document_id)

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """See `CorpusStore.write`."""
        for document in documents:
            _check(document, self._info.dimension)
        with self._writing:
            results = []
            if documents:
                vectors = np.concatenate([document.vectors for document in documents])
                with self._changing(vectors) as change:
                    for document in documents:
                        status: Literal["created", "replaced"] = (
                            "replaced" if change.replace(document) else "created"
                        )
                        results.append(DocumentResult(document.id, status, len(document.chunks)))
            info = self._info
            return WriteResult(results, info.documents, info.chunks, info.generation)

    def delete(self, document_id: str) -> bool:
        """See `CorpusStore.delete`."""
        with self._writing:
            if not self._database.known([document_id]):
                return False
            with self._changing(np.empty((0, self._info.dimension), np.float32)) as change:
                change.delete(document_id)
            return True

    def close(self) -> None:
        """See `CorpusStore.close`."""
        with self._writing:
            self._lexical.close()
            self._database.close()

    @contextmanager
    def _changing(self, vectors: Vector) -> Iterator[Transaction]:
        """One write: the block changes the database, the indexes follow; all of it or nothing.

        The word index is committed on disk just before the database. Should the process die between
        the two, the stamps differ and the index is built anew on the next open; should either be
        refused by the disk, neither has changed. `vectors` are those of the chunks that are added.
        """
        try:
            with self._database.transaction() as change:
                yield change
                try:
                    stamp = self._lexical.write(change.removed, change.bodies())
                except (OSError, ValueError) as error:
                    raise write_failed(error, self._folder / _LEXICAL) from error
                change.finish(stamp)
        except BaseException:
            # What it had taken in without being committed must not come up in the next commit.
            self._lexical.close()
            self._lexical = self._open_lexical()
            raise
        self._dense.change(change.removed, change.added, vectors)
        self._lexical.reload()
        self._info = self._database.info()

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
        if info.generation > 0:
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


def _check(document: NewDocument, dimension: int) -> None:
    """Raise ValueError where a document's vectors do not fit its chunks or the corpus."""
    wanted = (len(document.chunks), dimension)
    if document.vectors.shape != wanted:
        raise ValueError(f"{document.id}: vectors {document.vectors.shape}, expected {wanted}")
    if not np.isfinite(document.vectors).all():
        raise ValueError(f"{document.id}: a vector with NaN or infinity")
