"""Chunks as they are read from a corpus's database, with their document's description.

Of a document that several chunks are of, the description is read and parsed once, and no chunk is
read twice. Every function here takes several queries: it wants a transaction. Each raises
WrongSumError where what it reads is not what was written.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.retrieve.stores.base import ChunkRecord, Described, Extent, Metadata
from services.retrieve.stores.local.structure import place_of
from services.retrieve.stores.local.sums import require_sum, row_sum

_CHUNK = "c.key, c.document, c.number, c.start_at, c.end_at, c.tokens, c.place, c.text, c.checksum"
# All that `described_sum` is of, in its order, and it; of documents d, and restricted r.
DOCUMENT = (
    "d.number, d.id, d.content_hash, d.title, d.url, d.format, d.chunks, d.version, d.updated_at,"
    " d.metadata, r.readers, d.described_sum"
)
_ALL = 2**31  # more places than a document has


def fetch(db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, ChunkRecord]:
    """The chunks with these keys, in the order of `keys`; missing ones are absent."""
    rows = db.execute(
        f"SELECT {_CHUNK} FROM json_each(?) AS wanted"  # noqa: S608 - constants
        " JOIN chunks AS c ON c.key = wanted.value",
        (_json(keys),),
    ).fetchall()
    owners = documents(db, {row[1] for row in rows})
    found = {row[0]: owners[row[1]].chunk(row) for row in rows}
    return {key: found[key] for key in keys if key in found}


def described(db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, Described]:
    """What there is to know of the chunks' documents; missing chunks are absent."""
    places = _places(db, keys)
    owners = documents(db, {document for document, _ in places.values()})
    # One for all chunks of a document.
    values = {number: Described(one.metadata, one.updated_at) for number, one in owners.items()}
    return {key: values[document] for key, (document, _) in places.items()}


def extents(db: sqlite3.Connection, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
    """From where to where `neighbours` would reach; missing chunks are absent."""
    reach = _ALL if reach is None else reach
    # A text comes last in its row, and is left alone here.
    rows = db.execute(
        "SELECT c.key, d.id, first.start_at, last.end_at FROM json_each(?) AS wanted"
        " JOIN chunks AS c ON c.key = wanted.value JOIN documents AS d ON d.number = c.document"
        " JOIN chunks AS first ON first.document = d.number"
        " AND first.number = max(0, c.number - ?)"
        " JOIN chunks AS last ON last.document = d.number"
        " AND last.number = min(d.chunks - 1, c.number + ?)",
        (_json(keys), reach, reach),
    )
    return {key: Extent(*row) for key, *row in rows}


def neighbours(
    db: sqlite3.Connection, keys: Sequence[int], reach: int | None
) -> dict[int, Sequence[ChunkRecord]]:
    """Of each chunk those at most `reach` places away in its document (None: all), in order."""
    reach = _ALL if reach is None else reach
    places = _places(db, keys)
    owners = documents(db, {document for document, _ in places.values()})
    by_document: dict[int, list[tuple[int, int]]] = {}
    for key, (document, number) in places.items():
        by_document.setdefault(document, []).append((number, key))
    found: dict[int, Sequence[ChunkRecord]] = {}
    for document, wanted in by_document.items():
        for group in _overlapping(sorted(wanted), reach):
            first = max(0, group[0][0] - reach)
            rows = db.execute(
                f"SELECT {_CHUNK} FROM chunks AS c"  # noqa: S608 - constants
                " WHERE c.document = ? AND c.number BETWEEN ? AND ? ORDER BY c.number",
                (document, first, group[-1][0] + reach),
            )
            chunks = tuple(map(owners[document].chunk, rows))
            for number, key in group:
                # The whole of a tuple is no copy.
                found[key] = chunks[max(0, number - reach - first) : number + reach + 1 - first]
    return {key: found[key] for key in keys if key in found}


def readers(stored: str | None) -> tuple[str, ...] | None:
    """The readers of a document, from the list that `restricted` keeps."""
    return None if stored is None else tuple(json.loads(stored))


@dataclass(frozen=True, slots=True)
class Description:
    """What the chunks of a document have in common."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    metadata: Metadata
    updated_at: datetime
    readers: tuple[str, ...] | None

    def chunk(self, row: Sequence[Any]) -> ChunkRecord:
        """The chunk of a row of `_CHUNK`."""
        key, owner, number, start, end, tokens, place, text, checksum = row
        found = row_sum(owner, number, start, end, tokens, place, text)
        require_sum(checksum, found, f"chunk {number} of document '{self.id}'")
        return ChunkRecord(
            key=key,
            id=f"{self.id}#{number}",
            document_id=self.id,
            title=self.title,
            url=self.url,
            text=text,
            tokens=tokens,
            start=start,
            end=end,
            number=number,
            count=self.chunks,
            metadata=self.metadata,
            updated_at=self.updated_at,
            readers=self.readers,
            place=place_of(place),
        )


def documents(db: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, Description]:
    """Documents by their numbers."""
    rows = db.execute(
        f"SELECT {DOCUMENT} FROM json_each(?) AS wanted"  # noqa: S608 - constants
        " JOIN documents AS d ON d.number = wanted.value"
        " LEFT JOIN restricted AS r ON r.document = d.number",
        (_json(numbers),),
    )
    return {row[0]: _document(row) for row in rows}


def _document(row: Sequence[Any]) -> Description:
    """The document of a row that begins with `DOCUMENT`."""
    require_described(row)
    _, id_, _, title, url, _, chunks, _, updated_at, metadata, restricted, _ = row
    return Description(
        id=id_,
        title=title,
        url=url,
        chunks=chunks,
        metadata=json.loads(metadata),
        updated_at=datetime.fromisoformat(updated_at),
        readers=readers(restricted),
    )


def require_described(row: Sequence[Any]) -> None:
    """Raise WrongSumError where a row that begins with `DOCUMENT` does not fit its checksum."""
    require_sum(row[11], row_sum(*row[1:11]), f"document '{row[1]}'")


def _places(db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Of each chunk the number of its document, and its own in it; missing ones are absent."""
    rows = db.execute(
        "SELECT c.key, c.document, c.number FROM json_each(?) AS wanted"
        " JOIN chunks AS c ON c.key = wanted.value",
        (_json(keys),),
    )
    return {key: (document, number) for key, document, number in rows}


def _overlapping(
    wanted: Sequence[tuple[int, int]], reach: int
) -> Iterable[Sequence[tuple[int, int]]]:
    """(number, key), ascending, in groups within which no place is out of reach of two others."""
    at = 0
    for place in range(1, len(wanted) + 1):
        if place == len(wanted) or wanted[place][0] - wanted[place - 1][0] > 2 * reach:
            yield wanted[at:place]
            at = place


def _json(numbers: Iterable[int]) -> str:
    return json.dumps([int(number) for number in numbers])
