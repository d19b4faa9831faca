"""The catalogue's database, as far as it is a file of the data folder: jobs, and what they keep."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from services.retrieve.doctor.report import Level, Told

_SHOWN = 100  # faults of the file itself that are told
_MOVE_AWAY = (
    "restore it from a backup, or move it away to start without jobs and their history; "
    "the corpora are not in it"
)
_WAITING = {
    "running": "was under way when its process ended; retrieve goes on with it when it starts",
    "queued": "waits to be done; retrieve does it when it starts",
    "receiving": "never came in whole; retrieve removes it when it starts",
}


def examine(path: Path) -> Iterator[Told]:
    """Whatever is wrong with the file, and the jobs that wait in it; nothing is changed."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
            yield from _pages(db, path)
            yield from _jobs(db, path)
    except sqlite3.Error as error:
        yield Told(Level.DAMAGED, str(path), f"it can't be read ({error})", _MOVE_AWAY)


def _pages(db: sqlite3.Connection, path: Path) -> Iterator[Told]:
    for (told,) in db.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if told != "ok":
            yield Told(Level.DAMAGED, str(path), told, _MOVE_AWAY)
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN):
        what = f"row {row} of {table} belongs to nothing in {parent}"
        yield Told(Level.DAMAGED, str(path), what, _MOVE_AWAY)


def _jobs(db: sqlite3.Connection, path: Path) -> Iterator[Told]:
    if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'jobs'").fetchone()[0]:
        return
    rows = db.execute("SELECT id, kind, corpus, state, request, cursor, result, error FROM jobs")
    for id_, kind, corpus, state, *packed in rows:
        where = f"{path}: job {id_} ({kind} of corpus '{corpus}')"
        if state in _WAITING:
            what, _, remedy = _WAITING[state].partition("; ")
            yield Told(Level.NOTE, where, what, remedy)
        for text in packed:
            try:
                json.loads(text or "null")
            except (ValueError, TypeError):
                yield Told(Level.DAMAGED, where, "what it keeps can't be read", _MOVE_AWAY)
                break
