"""The settings, the stamp and the state of a corpus as rows of its database, names to texts."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from services.retrieve.stores.corpus import (
    CorpusInfo,
    CorpusSpec,
    ModelStamp,
    Preferences,
    RecencyDefault,
)
from services.retrieve.stores.local.sums import require_sum, row_sum

_SUM = "checksum"  # of all other rows
_CHANGES = "changes"  # how often rows were written, ever


def new_rows(
    spec: CorpusSpec,
    stamp: ModelStamp,
    chunker: str,
    *,
    sparse: bool,
    generation: int,
    created_at: datetime,
    made_at: datetime,
) -> dict[str, str]:
    """The rows of an empty generation of a corpus, which was created and itself made at these
    times."""
    curate = spec.curate is not False
    return {
        "name": spec.name,
        "language": spec.language,
        "chunk_tokens": str(spec.chunk_tokens),
        "chunk_overlap": str(spec.chunk_overlap),
        **{name: str(value) for name, value in asdict(stamp).items()},
        **preference_rows(Preferences(spec.description, curate, spec.recency, spec.readers)),
        "chunker": chunker,
        "sparse": str(sparse),
        "created_at": created_at.isoformat(timespec="milliseconds"),
        "made_at": made_at.isoformat(timespec="milliseconds"),
        "generation": str(generation),
        "writes": "0",
        "lexical": "",
    }


def preference_rows(preferences: Preferences) -> dict[str, str]:
    """The rows of what may change at any time."""
    recency = preferences.recency and asdict(preferences.recency)
    readers = preferences.readers
    return {
        "description": preferences.description,
        "curate": str(preferences.curate),
        "recency": json.dumps(recency, ensure_ascii=False),
        "readers": json.dumps(readers, ensure_ascii=False),
    }


def read(db: sqlite3.Connection) -> dict[str, str]:
    """All rows. Raises WrongSumError where they are not as they were written."""
    rows = dict(db.execute("SELECT name, value FROM meta").fetchall())
    require_sum(int(rows.pop(_SUM, -1)), _sum_of(rows), "the table of settings")
    return rows


def write(db: sqlite3.Connection, changes: Mapping[str, str]) -> int:
    """Change or add rows, within a transaction; how often that was done, ever."""
    rows = dict(db.execute("SELECT name, value FROM meta WHERE name != ?", (_SUM,)).fetchall())
    count = changes_of(rows) + 1
    changed = {**changes, _CHANGES: str(count)}
    changed[_SUM] = str(_sum_of(rows | changed))
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", changed.items())
    return count


def changes_of(rows: Mapping[str, str]) -> int:
    """How often the rows were written: once in each transaction that changes a corpus."""
    return int(rows.get(_CHANGES, 0))


def info_of(rows: Mapping[str, str], name: str, documents: int, chunks: int) -> CorpusInfo:
    """A corpus of this name by its rows and counts. Raises KeyError or ValueError for rows that
    this version can't have written."""
    recency, readers = json.loads(rows["recency"]), json.loads(rows["readers"])
    return CorpusInfo(
        name=name,
        description=rows["description"],
        language=rows["language"],
        model=rows["model"],
        revision=rows["revision"],
        dimension=int(rows["dimension"]),
        chunk_tokens=int(rows["chunk_tokens"]),
        chunk_overlap=int(rows["chunk_overlap"]),
        curate=rows["curate"] != str(False),
        sparse=rows["sparse"] == str(True),
        chunker=rows["chunker"],
        documents=documents,
        chunks=chunks,
        writes=int(rows["writes"]),
        created_at=datetime.fromisoformat(rows["created_at"]),
        recency=recency and RecencyDefault(**recency),
        readers=None if readers is None else tuple(readers),
        generation=int(rows["generation"]),
    )


def _sum_of(rows: Mapping[str, str]) -> int:
    return row_sum(*(text for row in sorted(rows.items()) for text in row))
