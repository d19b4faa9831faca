"""Chunks and documents as they are read back: what is shown of a chunk from its point, what is said
of its document from the catalogue.

A point is there before its document is live and until after it is not, so whoever reads the points
first and asks then which documents are live gets whole documents or none.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.base import (
    EVERYTHING,
    ChunkRecord,
    DocumentSummary,
    Extent,
    NewChunk,
    NewDocument,
    Scope,
    StoredDocument,
    Vector,
)
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.points import (
    DENSE,
    MOST_CHUNKS,
    SPARSE,
    Point,
    Points,
    key_of,
    keys_of,
    number_of,
)
from services.retrieve.stores.qdrant.rows import Live
from services.retrieve.stores.qdrant.tables import DOCUMENTS
from services.retrieve.stores.qdrant.words import body
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import Revision
from shared.errors import ApiError

_D = DOCUMENTS.c
_PART = 64  # documents read at a time
_PAGE = 512  # documents listed at a time within a scope
NO_WEIGHTS = Sparse(np.empty(0, np.int32), np.empty(0, np.float32))
_TRIES = 10  # to read a document that is replaced again and again


class Reader:
    """What of one generation can be read."""

    def __init__(self, database: CatalogueDatabase, points: Points, generation: int) -> None:
        self._database = database
        self._points = points
        self._generation = generation

    def live(self, keys: Sequence[int]) -> dict[int, Live]:
        """The live documents of those of the chunks that there are, by key."""
        with self._database.read() as connection:
            owners = rows.live(connection, self._generation, map(number_of, keys))
        found = {}
        for key in keys:
            owner = owners.get(number_of(key))
            if owner is not None and key % MOST_CHUNKS < owner.chunks:
                found[key] = owner
        return found

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """See `CorpusStore.fetch`."""
        points = self._points.read(keys, shown=True)
        live = self.live(list(points))
        return {key: _record(points[key], owner) for key, owner in live.items()}

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """See `CorpusStore.vectors`."""
        points = self._points.read(keys, vectors=[DENSE])
        found = {}
        for key in self.live(list(points)):
            vector = points[key].vector
            if vector is not None:
                found[key] = vector
        return found

    def neighbours(
        self, keys: Sequence[int], reach: int | None
    ) -> dict[int, Sequence[ChunkRecord]]:
        """See `CorpusStore.neighbours`."""
        around = {key: _around(key, owner, reach) for key, owner in self.live(keys).items()}
        wanted = sorted({key for one in around.values() for key in one})
        records = self.fetch(wanted)
        # Of a document that went meanwhile nothing is there.
        return {
            key: tuple(records[one] for one in places)
            for key, places in around.items()
            if all(one in records for one in places)
        }

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        """See `CorpusStore.extents`."""
        live = self.live(keys)
        ends = {key: _around(key, owner, reach) for key, owner in live.items()}
        chunks = self._points.read(
            sorted({end for places in ends.values() for end in (places[0], places[-1])}),
            shown=True,
        )
        found = {}
        for key, places in ends.items():
            first, last = chunks.get(places[0]), chunks.get(places[-1])
            if first and last and first.chunk and last.chunk:
                found[key] = Extent(live[key].id, first.chunk.start, last.chunk.end)
        return found

    def bodies(self) -> Iterator[tuple[int, str]]:
        """See `CorpusStore.bodies`; whoever reads keeps this process from removing points.

        Raises ApiError 503 where another process removed some that are still to be read.
        """
        columns = (_D.number, _D.chunks, _D.title)
        with self._database.read() as connection:
            documents = list(rows.every(connection, self._generation, _D.number, *columns))
        for start in range(0, len(documents), _PART):
            part = documents[start : start + _PART]
            points = self._points.read(
                [key for one in part for key in keys_of(one.number, one.chunks)], shown=True
            )
            for one in part:
                for key in keys_of(one.number, one.chunks):
                    point = points.get(key)
                    if point is None or point.chunk is None:
                        raise ApiError(
                            503,
                            "store_unavailable",
                            "a document changed while all were read: try again",
                            headers={"Retry-After": "1"},
                        )
                    yield key, body(one.title, point.chunk.text)

    def revisions(self) -> Iterator[Revision]:
        """See `CorpusStore.revisions`."""
        with self._database.read() as connection:
            columns = (_D.id, _D.content_hash, _D.version, _D.updated_at)
            for row in rows.every(connection, self._generation, _D.id, *columns):
                yield Revision(*row)

    def documents(
        self, limit: int, after: str | None, scope: Scope, prefix: str
    ) -> list[DocumentSummary]:
        """See `CorpusStore.documents`. Within a scope as many rows are read as it takes to fill the
        page."""
        found: list[Live] = []
        while len(found) < limit:
            asked = limit - len(found) if scope == EVERYTHING else max(_PAGE, limit)
            with self._database.read() as connection:
                page = rows.page(connection, self._generation, after, prefix, asked)
            found += [one for one in page if scope == EVERYTHING or one.within(scope)]
            if len(page) < asked:
                break
            after = page[-1].id
        return [
            DocumentSummary(one.id, one.title, one.url, one.chunks, one.updated_at)
            for one in found[:limit]
        ]

    def document(self, document_id: str, scope: Scope) -> StoredDocument | None:
        """See `CorpusStore.document`."""
        with self._database.read() as connection:
            found = rows.of_ids(connection, self._generation, [document_id], *_D)
        row = found.get(document_id)
        if row is None:
            return None
        metadata, readers = json.loads(row.metadata), rows.names_in(row.readers)
        if not scope.sees(metadata, readers):
            return None
        return StoredDocument(
            id=row.id,
            title=row.title,
            url=row.url,
            format=row.format,
            metadata=metadata,
            text=row.text,
            chunks=row.chunks,
            version=row.version,
            updated_at=datetime.fromisoformat(row.updated_at),
            readers=readers,
            outline=rows.outline_in(row.outline),
        )

    def whole(self, ids: Sequence[str], dimension: int, *, sparse: bool) -> dict[str, NewDocument]:
        """See `CorpusStore.whole`. Raises ApiError 500 where a document's points are missing."""
        found: dict[str, NewDocument] = {}
        for start in range(0, len(ids), _PART):
            left, missing = list(ids[start : start + _PART]), dict[str, int]()
            for _ in range(_TRIES):
                with self._database.read() as connection:
                    documents = rows.of_ids(connection, self._generation, left, *_D)
                points = self._points.read(
                    [key for row in documents.values() for key in keys_of(row.number, row.chunks)],
                    shown=True,
                    vectors=[DENSE, SPARSE] if sparse else [DENSE],
                )
                left = []
                for row in documents.values():
                    own = [points.get(key) for key in keys_of(row.number, row.chunks)]
                    parts = [one for one in own if one and one.chunk and one.vector is not None]
                    if len(parts) == row.chunks:
                        found[row.id] = _whole(row, parts, dimension, sparse=sparse)
                    elif missing.get(row.id) == row.number:
                        raise _incomplete(row.id)
                    else:  # it was replaced, or points are lost: the next reading tells
                        missing[row.id] = row.number
                        left.append(row.id)
                if not left:
                    break
            if left:
                raise _incomplete(left[0])
        return {one: found[one] for one in ids if one in found}


def _around(key: int, owner: Live, reach: int | None) -> range:
    """The keys of a chunk's neighbours and its own."""
    place = key % MOST_CHUNKS
    reach = owner.chunks if reach is None else reach
    first, last = max(0, place - reach), min(owner.chunks - 1, place + reach)
    return range(key_of(owner.number, first), key_of(owner.number, last) + 1)


def _record(point: Point, owner: Live) -> ChunkRecord:
    chunk, number = _chunk(point), point.key % MOST_CHUNKS
    return ChunkRecord(
        key=point.key,
        id=f"{owner.id}#{number}",
        document_id=owner.id,
        title=owner.title,
        url=owner.url,
        text=chunk.text,
        tokens=chunk.tokens,
        start=chunk.start,
        end=chunk.end,
        number=number,
        count=owner.chunks,
        metadata=owner.metadata,
        updated_at=owner.updated_at,
        readers=owner.readers,
        place=chunk.place,
    )


def _whole(row: Any, points: Sequence[Point], dimension: int, *, sparse: bool) -> NewDocument:
    vectors = [point.vector for point in points if point.vector is not None]
    return NewDocument(
        id=row.id,
        content_hash=row.content_hash,
        title=row.title,
        url=row.url,
        format=row.format,
        metadata=json.loads(row.metadata),
        text=row.text,
        chunks=[_chunk(point) for point in points],
        vectors=np.stack(vectors) if vectors else np.empty((0, dimension), np.float32),
        readers=rows.names_in(row.readers),
        sparse=[point.sparse or NO_WEIGHTS for point in points] if sparse else None,
        outline=rows.outline_in(row.outline),
        version=row.version,
        updated_at=datetime.fromisoformat(row.updated_at),
    )


def _chunk(point: Point) -> NewChunk:
    if point.chunk is None:
        raise ApiError(500, "corpus_damaged", f"point {point.key} in Qdrant has no text")
    return point.chunk


def _incomplete(document_id: str) -> ApiError:
    return ApiError(
        500,
        "corpus_damaged",
        f"chunks of document {document_id!r} are missing in Qdrant: restore its collections from "
        "a snapshot, or load the document again",
    )
