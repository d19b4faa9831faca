"""Chunks as they are read from a corpus's database, with their document's description."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.retrieve.stores.base import ChunkRecord

_COLUMNS = (
    "c.key, d.id, d.title, d.url, c.text, c.tokens, c.start_at, c.end_at, c.number, d.chunks,"
    " d.metadata, d.updated_at, r.readers"
)
_JOINED = (
    "JOIN documents AS d ON d.number = c.document"
    " LEFT JOIN restricted AS r ON r.document = d.number"
)
_ALL = 2**31  # more places than a document has


def fetch(db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, ChunkRecord]:
    """The chunks with these keys, in the order of `keys`; missing ones are absent."""
    # One statement: all chunks are of one state of the database.
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM json_each(?) AS wanted"  # noqa: S608 - constants
        f" JOIN chunks AS c ON c.key = wanted.value {_JOINED}",
        (_json(keys),),
    )
    read = _Reader()
    found = {row[0]: read(row) for row in rows}
    return {key: found[key] for key in keys if key in found}


def neighbours(
    db: sqlite3.Connection, keys: Sequence[int], reach: int | None
) -> dict[int, list[ChunkRecord]]:
    """Of each chunk those at most `reach` places away in its document (None: all), in order."""
    reach = _ALL if reach is None else reach
    wanted = list(dict.fromkeys(keys))
    rows = db.execute(
        f"SELECT {_COLUMNS}, w.key FROM json_each(?) AS wanted"  # noqa: S608 - constants
        " JOIN chunks AS w ON w.key = wanted.value JOIN chunks AS c"
        " ON c.document = w.document AND c.number BETWEEN w.number - ? AND w.number + ?"
        f" {_JOINED} ORDER BY wanted.id, c.number",
        (_json(wanted), reach, reach),
    )
    read = _Reader()
    found: dict[int, list[ChunkRecord]] = {}
    for row in rows:
        found.setdefault(row[-1], []).append(read(row))
    return found


def readers(stored: str | None) -> tuple[str, ...] | None:
    """The readers of a document, from the list that `restricted` keeps."""
    return None if stored is None else tuple(json.loads(stored))


class _Reader:
    """Makes chunks of rows. The chunks of a document share its metadata, which is parsed once."""

    def __init__(self) -> None:
        self._metadata: dict[str, Any] = {}

    def __call__(self, row: tuple[Any, ...]) -> ChunkRecord:
        if row[10] not in self._metadata:
            self._metadata[row[10]] = json.loads(row[10])
        return ChunkRecord(
            key=row[0],
            id=f"{row[1]}#{row[8]}",
            document_id=row[1],
            title=row[2],
            url=row[3],
            text=row[4],
            tokens=row[5],
            start=row[6],
            end=row[7],
            number=row[8],
            count=row[9],
            metadata=self._metadata[row[10]],
            updated_at=datetime.fromisoformat(row[11]),
            readers=readers(row[12]),
        )


def _json(keys: Sequence[int]) -> str:
    return json.dumps([int(key) for key in keys])
