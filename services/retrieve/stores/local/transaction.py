"""What one write changes in a corpus's database."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from services.retrieve.stores.base import CorpusInfo, NewDocument
from services.retrieve.stores.local.facts import store_facts
from services.retrieve.stores.local.sparse_rows import packed


class Transaction:
    """The changes of one write, in a transaction that is open on the writer's connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.removed: list[int] = []
        self.added: list[int] = []
        self.owners: list[int] = []

    def replace(self, document: NewDocument) -> bool:
        """Put a document with its chunks and vectors in the place of one with its id, if any.

        Adds the chunks' keys to `added` and `removed`, and to `owners` the number of the document
        for each that was added. True where there was one before.
        """
        version = self._remove(document.id)
        row = self._db.execute(
            "INSERT INTO documents (id, content_hash, title, url, format, chunks, version,"
            " updated_at, metadata, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                document.id,
                document.content_hash,
                document.title,
                document.url,
                document.format,
                len(document.chunks),
                version + 1,
                datetime.now(UTC).isoformat(timespec="milliseconds"),
                json.dumps(dict(document.metadata), ensure_ascii=False),
                document.text,
            ),
        ).lastrowid
        owner = int(row or 0)
        store_facts(self._db, owner, document.metadata, document.readers)
        for number, part in enumerate(document.chunks):
            key = self._db.execute(
                "INSERT INTO chunks (document, number, start_at, end_at, tokens, text)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (owner, number, part.start, part.end, part.tokens, part.text),
            ).lastrowid
            vector = document.vectors[number].astype("<f4").tobytes()
            self._db.execute("INSERT INTO vectors VALUES (?, ?)", (key, vector))
            if document.sparse is not None:
                weights = packed(document.sparse[number])
                self._db.execute("INSERT INTO sparse_vectors VALUES (?, ?)", (key, weights))
            self.added.append(int(key or 0))
            self.owners.append(owner)
        return version > 0

    def delete(self, document_id: str) -> bool:
        """Remove a document with all that belongs to it; False where there is none."""
        return self._remove(document_id) > 0

    def finish(self, lexical_stamp: str) -> None:
        """Raise the count of writes and note which state of the word index belongs to it."""
        self._db.execute(
            "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'generation'"
        )
        self.note_lexical(lexical_stamp)

    def note_lexical(self, stamp: str) -> None:
        """Note which state of the word index agrees with this database."""
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'lexical'", (stamp,))

    def bodies(self) -> list[tuple[int, str]]:
        """What the word index gets of the added chunks: their key, title and text."""
        return list(bodies(self._db, self.added[0])) if self.added else []

    def _remove(self, document_id: str) -> int:
        """Remove a document and give its version, 0 where there was none."""
        found = self._db.execute(
            "SELECT number, version FROM documents WHERE id = ?", (document_id,)
        ).fetchone()
        if found is None:
            return 0
        number, version = found
        keys = self._db.execute("SELECT key FROM chunks WHERE document = ?", (number,))
        self.removed.extend(key for (key,) in keys)
        self._db.execute("DELETE FROM documents WHERE number = ?", (number,))
        return int(version)


def require_fitting(document: NewDocument, corpus: CorpusInfo) -> None:
    """Raise ValueError where a document's vectors do not fit its chunks or the corpus."""
    wanted = (len(document.chunks), corpus.dimension)
    if document.vectors.shape != wanted:
        raise ValueError(f"{document.id}: vectors {document.vectors.shape}, expected {wanted}")
    if not np.isfinite(document.vectors).all():
        raise ValueError(f"{document.id}: a vector with NaN or infinity")
    sparse = None if document.sparse is None else len(document.sparse)
    expected = len(document.chunks) if corpus.sparse else None
    if sparse != expected:
        raise ValueError(f"{document.id}: sparse vectors {sparse}, expected {expected}")


def bodies(db: sqlite3.Connection, first: int) -> Iterator[tuple[int, str]]:
    """Key, and title and text, of the chunks from key `first` on, in key order."""
    rows = db.execute(
        "SELECT c.key, d.title, c.text FROM chunks AS c JOIN documents AS d"
        " ON d.number = c.document WHERE c.key >= ? ORDER BY c.key",
        (first,),
    )
    for key, title, text in rows:
        yield key, f"{title}\n{text}" if title else text
