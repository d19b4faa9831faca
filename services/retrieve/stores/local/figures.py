"""The figures of a corpus's database and of the files around it."""

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from services.retrieve.stores.base import DocumentSummary
from services.retrieve.stores.figures import LONGEST, Figures
from services.retrieve.stores.local.layout import DENSE, LEXICAL


def figures(db: sqlite3.Connection, folder: Path) -> Figures:
    """Several queries: it wants a transaction. folder: of the generation."""
    (tokens,) = db.execute("SELECT coalesce(sum(tokens), 0) FROM chunks").fetchone()
    formats = db.execute("SELECT format, count(*) FROM documents GROUP BY format ORDER BY format")
    (last,) = db.execute("SELECT max(updated_at) FROM documents").fetchone()
    longest = db.execute(
        "SELECT id, title, url, chunks, updated_at FROM documents ORDER BY chunks DESC, id LIMIT ?",
        (LONGEST,),
    )
    return Figures(
        tokens=tokens,
        formats=dict(formats.fetchall()),
        last_write=datetime.fromisoformat(last) if last else None,
        longest=[
            DocumentSummary(id_, title, url, chunks, datetime.fromisoformat(updated_at))
            for id_, title, url, chunks, updated_at in longest
        ],
        bytes=_bytes(folder),
    )


def _bytes(folder: Path) -> Mapping[str, int]:
    """On the disk, by what the files hold. Those that go meanwhile count nothing."""
    found = dict.fromkeys(("database", "words", "vectors"), 0)
    kinds = {LEXICAL: "words", DENSE: "vectors"}
    for path in folder.rglob("*"):
        kind = kinds.get(path.relative_to(folder).parts[0], "database")
        try:
            found[kind] += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return found
