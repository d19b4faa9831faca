"""Whole documents as they are read from a corpus's database: listed, compared, copied.

Most functions take several queries: they want a transaction. Each raises WrongSumError where what
it reads is not what was written.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from services.retrieve.stores.base import (
    DocumentSummary,
    KnownDocument,
    NewChunk,
    NewDocument,
    Scope,
    StoredDocument,
    Vector,
)
from services.retrieve.stores.local import facts, records
from services.retrieve.stores.local.sparse_rows import unpacked
from services.retrieve.stores.local.structure import outline_of, place_of
from services.retrieve.stores.local.sums import WrongSumError, require_sum, row_sum, vector_sum
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import Revision

_WHOLE = (
    f"SELECT {records.DOCUMENT}, d.text_sum, d.outline, d.text FROM documents AS d"  # noqa: S608 - constants
    " LEFT JOIN restricted AS r ON r.document = d.number WHERE d.id = ?"
)


def known(db: sqlite3.Connection, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
    """Content hash and chunk count of those documents that are stored."""
    rows = db.execute(
        "SELECT id, content_hash, chunks FROM documents"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(document_ids)),),
    )
    return {id_: KnownDocument(content_hash, chunks) for id_, content_hash, chunks in rows}


def listed(
    db: sqlite3.Connection, limit: int, after: str | None, scope: Scope, prefix: str
) -> list[DocumentSummary]:
    """See `CorpusStore.documents`."""
    numbers = facts.page_in(db, limit, after or "", scope, prefix)
    found = records.documents(db, numbers)
    return [
        DocumentSummary(one.id, one.title, one.url, one.chunks, one.updated_at)
        for one in (found[number] for number in numbers)
    ]


def stored(db: sqlite3.Connection, document_id: str, scope: Scope) -> StoredDocument | None:
    """A document with its parsed text, or None where there is none in the scope."""
    row = db.execute(_WHOLE, (document_id,)).fetchone()
    if row is None:
        return None
    _require_sound(row)
    metadata, readers = json.loads(row[9]), records.readers(row[10])
    if not scope.sees(metadata, readers):
        return None
    return StoredDocument(
        id=row[1],
        title=row[3],
        url=row[4],
        format=row[5],
        metadata=metadata,
        text=row[14],
        chunks=row[6],
        version=row[7],
        updated_at=datetime.fromisoformat(row[8]),
        readers=readers,
        outline=outline_of(row[13]),
    )


def revisions(db: sqlite3.Connection) -> Iterator[Revision]:
    """Of every document its state, by ascending id."""
    rows = db.execute("SELECT id, content_hash, version, updated_at FROM documents ORDER BY id")
    return (Revision(*row) for row in rows)


def whole(
    db: sqlite3.Connection, document_ids: Sequence[str], dimension: int, *, sparse: bool
) -> dict[str, NewDocument]:
    """Documents as they could be written again; see `CorpusStore.whole`."""
    found = {}
    for id_ in document_ids:
        row = db.execute(_WHOLE, (id_,)).fetchone()
        if row is not None:
            _require_sound(row)
            found[id_] = _copy(db, row, dimension, sparse=sparse)
    return found


def _copy(
    db: sqlite3.Connection, row: Sequence[Any], dimension: int, *, sparse: bool
) -> NewDocument:
    chunks: list[NewChunk] = []
    vectors: list[Vector] = [np.empty((0, dimension), np.float32)]
    weights: list[Sparse] = []
    parts = db.execute(
        "SELECT c.number, c.start_at, c.end_at, c.tokens, c.place, c.text, c.checksum,"
        " c.key, v.vector, v.checksum, s.weights, s.checksum FROM chunks AS c"
        " JOIN vectors AS v ON v.key = c.key LEFT JOIN sparse_vectors AS s ON s.key = c.key"
        " WHERE c.document = ? ORDER BY c.number",
        (row[0],),
    )
    for (
        number,
        start,
        end,
        tokens,
        place,
        text,
        checksum,
        key,
        vector,
        sum_,
        pairs,
        pairs_sum,
    ) in parts:
        of = f"chunk {number} of document '{row[1]}'"
        require_sum(checksum, row_sum(row[0], number, start, end, tokens, place, text), of)
        require_sum(sum_, vector_sum(key, vector), f"the vector of {of}")
        chunks.append(NewChunk(text, start, end, tokens, place_of(place)))
        vectors.append(np.frombuffer(vector, "<f4").astype(np.float32).reshape(1, dimension))
        if sparse:
            require_sum(pairs_sum, vector_sum(key, pairs), f"the sparse vector of {of}")
            weights.append(unpacked(pairs))
    if len(chunks) != row[6]:
        raise WrongSumError(f"document '{row[1]}' has {len(chunks)} of {row[6]} chunks")
    return NewDocument(
        id=row[1],
        content_hash=row[2],
        title=row[3],
        url=row[4],
        format=row[5],
        metadata=json.loads(row[9]),
        text=row[14],
        chunks=chunks,
        vectors=np.concatenate(vectors),
        readers=records.readers(row[10]),
        sparse=weights if sparse else None,
        outline=outline_of(row[13]),
        version=row[7],
        updated_at=datetime.fromisoformat(row[8]),
    )


def _require_sound(row: Sequence[Any]) -> None:
    records.require_described(row)
    require_sum(row[12], row_sum(row[13], row[14]), f"the text of document '{row[1]}'")
