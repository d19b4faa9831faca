"""One generation of a corpus: its database, and what follows from it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from services.retrieve.doctor.report import DOCTOR, RESTORE, Level, Told
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense import EXACT, DenseIndex
from services.retrieve.stores.local.dense_file import ListsDamagedError, fits, load
from services.retrieve.stores.local.dense_rows import VectorRows
from services.retrieve.stores.local.faults import read_failed
from services.retrieve.stores.local.layout import DATABASE, DENSE, LEXICAL
from services.retrieve.stores.local.lexical import LexicalDamagedError, LexicalIndex
from services.retrieve.stores.local.rebuilding import note
from services.retrieve.stores.local.schema import SCHEMA, is_outdated
from shared.errors import ApiError

_AT_START = "retrieve does it when it starts"


def examine(folder: Path) -> Iterator[Told]:
    """Whatever is wrong in the folder of a generation; all of it is read, and no content changed.

    A database of an older schema is left as it is: only its file is looked at.
    """
    path = folder / DATABASE
    try:
        if _outdated(path):
            what = f"its schema is older than {SCHEMA}, so that it has no checksums yet"
            yield Told(Level.NOTE, str(path), f"{what}, and is to be upgraded", _AT_START)
            return
        with closing(Database.open(folder)) as database:
            sound = True
            for finding in database.findings():
                level = Level.DERIVED if finding.derived else Level.DAMAGED
                sound = sound and finding.derived
                remedy = DOCTOR if finding.derived else RESTORE
                yield Told(level, finding.where, finding.what, remedy)
            if sound:
                yield from _words(folder, database)
                yield from _lists(folder, database)
    except ApiError as error:
        yield Told(Level.DAMAGED, str(path), error.message, RESTORE)


def rebuild(folder: Path) -> list[str]:
    """Make anew what follows from the database of a generation, which must be sound; what was done.

    Raises ApiError 507 where the disk refuses.
    """
    if _outdated(folder / DATABASE):
        return []
    with closing(Database.open(folder)) as database:
        database.derive_anew()
        info = database.info()
        done = [f"{folder / DATABASE}: the facts of {info.documents} documents"]
        for name in (LEXICAL, DENSE):
            shutil.rmtree(folder / name, ignore_errors=True)
        try:
            words = LexicalIndex.build(folder / LEXICAL, info.language, database.bodies())
        except (OSError, ValueError) as error:
            raise ApiError(507, "storage_failed", f"{folder / LEXICAL}: {error}") from error
        note(database, words)
        done.append(f"{folder / LEXICAL}: the words of {len(words)} chunks")
        words.close()
        if info.chunks > EXACT:
            _learn(folder, database, info)
            done.append(f"{folder / DENSE}: the lists of {info.chunks} vectors")
    return done


def _outdated(path: Path) -> bool:
    """Raises ApiError 500 where the file can't be read. Its log stays, which `Database.open` knows
    to keep where it is damaged."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return is_outdated(db, path)
    except sqlite3.Error as error:
        raise read_failed(error, path) from error


def _words(folder: Path, database: Database) -> Iterator[Told]:
    info, place = database.info(), folder / LEXICAL
    try:
        index = LexicalIndex.open(place, info.language, database.lexical_stamp())
    except LexicalDamagedError as error:
        if info.writes > 0:  # before the first one there may be none
            yield Told(Level.DERIVED, str(place), str(error), DOCTOR)
        return
    keys, _ = database.keys()
    if not np.array_equal(index.keys(), keys):
        what = f"it holds other chunks than the {len(keys)} that there are"
        yield Told(Level.DERIVED, str(place), what, DOCTOR)


def _lists(folder: Path, database: Database) -> Iterator[Told]:
    place, info = folder / DENSE, database.info()
    if not place.exists():
        if info.chunks > EXACT:
            what = "the index of the vectors is not there"
            remedy = f"searches are exact, and slower, until it is learned; {_AT_START}"
            yield Told(Level.NOTE, str(place), what, remedy)
        return
    keys, vectors = database.vectors()
    try:
        saved = load(place, info.dimension)
        if not fits(saved, VectorRows(info.dimension, keys, vectors, database.last_key())):
            raise ListsDamagedError("it belongs to another state of the corpus")
    except ListsDamagedError as error:
        yield Told(Level.DERIVED, str(place), str(error), DOCTOR)


def _learn(folder: Path, database: Database, info: CorpusInfo) -> None:
    keys, vectors = database.vectors()
    index = DenseIndex(
        info.dimension, keys, vectors, last_key=database.last_key(), folder=folder / DENSE
    )
    index.settle()
    index.close()
