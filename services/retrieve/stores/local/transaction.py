"""What one write changes in a corpus's database."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.local import meta
from services.retrieve.stores.local.facts import packed_readers, store_facts
from services.retrieve.stores.local.sparse_rows import packed
from services.retrieve.stores.local.structure import packed_outline, packed_place
from services.retrieve.stores.local.sums import row_sum, vector_sum


class Transaction:
    """The changes of one write, in a transaction that is open on the writer's connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.removed: list[int] = []
        self.added: list[int] = []
        self.owners: list[int] = []
        self.changes = 0  # of the corpus, with this one

    def replace(self, document: NewDocument) -> bool:
        """Put a document with its chunks and vectors in the place of one with its id, if any.

        Adds the chunks' keys to `added` and `removed`, and to `owners` the number of the document
        for each that was added. True where there was one before.
        """
        before = self._remove(document.id)
        version = before + 1 if document.version is None else document.version
        written = document.updated_at or datetime.now(UTC)
        described = (
            document.id,
            document.content_hash,
            document.title,
            document.url,
            document.format,
            len(document.chunks),
            version,
            written.isoformat(timespec="milliseconds"),
            json.dumps(dict(document.metadata), ensure_ascii=False),
        )
        outline = packed_outline(document.outline)
        row = self._db.execute(
            "INSERT INTO documents (id, content_hash, title, url, format, chunks, version,"
            " updated_at, metadata, described_sum, text_sum, outline, text)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *described,
                row_sum(*described, packed_readers(document.readers)),
                row_sum(outline, document.text),
                outline,
                document.text,
            ),
        ).lastrowid
        owner = int(row or 0)
        store_facts(self._db, owner, document.metadata, document.readers)
        for number, part in enumerate(document.chunks):
            place = packed_place(part.place)
            checksum = row_sum(owner, number, part.start, part.end, part.tokens, place, part.text)
            key = self._db.execute(
                "INSERT INTO chunks (document, number, start_at, end_at, tokens, text, place,"
                " checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (owner, number, part.start, part.end, part.tokens, part.text, place, checksum),
            ).lastrowid
            self._keep("vectors", int(key or 0), document.vectors[number].astype("<f4").tobytes())
            if document.sparse is not None:
                self._keep("sparse_vectors", int(key or 0), packed(document.sparse[number]))
            self.added.append(int(key or 0))
            self.owners.append(owner)
        return before > 0

    def delete(self, document_id: str) -> bool:
        """Remove a document with all that belongs to it; False where there is none."""
        return self._remove(document_id) > 0

    def finish(self, lexical_stamp: str) -> None:
        """Raise the count of writes and note which state of the word index belongs to it."""
        writes = int(meta.read(self._db)["writes"]) + 1
        self.note({"writes": str(writes), "lexical": lexical_stamp})

    def note(self, rows: Mapping[str, str]) -> None:
        """Change settings or state of the corpus; see meta.py for their names."""
        self.changes = meta.write(self._db, rows)

    def bodies(self) -> list[tuple[int, str]]:
        """What the word index gets of the added chunks: their key, title and text."""
        return list(bodies(self._db, self.added[0])) if self.added else []

    def _keep(self, table: str, key: int, vector: bytes) -> None:
        self._db.execute(
            f"INSERT INTO {table} VALUES (?, ?, ?)",  # noqa: S608 - our own names
            (key, vector, vector_sum(key, vector)),
        )

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


def bodies(
    db: sqlite3.Connection, first: int, limit: int | None = None
) -> Iterator[tuple[int, str]]:
    """Key, and title and text, of at most `limit` chunks from key `first` on, in key order."""
    rows = db.execute(
        "SELECT c.key, d.title, c.text FROM chunks AS c JOIN documents AS d"
        " ON d.number = c.document WHERE c.key >= ? ORDER BY c.key LIMIT ?",
        (first, -1 if limit is None else limit),
    )
    for key, title, text in rows:
        yield key, f"{title}\n{text}" if title else text
