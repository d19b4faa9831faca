"""A backup becomes a corpus: checked as a whole, then written anew, and there at once.

Until it is whole nobody sees it: a new corpus is hidden by the catalog, and one that takes the
place of another is built as its dark generation and swapped in. A note on the disk says so
meanwhile, so that what a process leaves behind that died is removed when the next one starts.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from services.retrieve.corpus.catalog import Catalog, corpus_exists
from services.retrieve.corpus.transfer import check
from services.retrieve.corpus.transfer.manifest import Manifest
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.layout import DATABASE
from shared.context import current
from shared.durable import atomic_write
from shared.errors import ApiError, StartupError
from shared.telemetry import get_logger

_CHUNKS = 2048  # written at a time
_NOTE = "restoring-"  # and the corpus's name
_NEW, _REPLACED = b"new", b"replaced"

log = get_logger(__name__)


def clear_away(folder: Path, catalog: Catalog) -> None:
    """Make the folder for transfers, and remove what a process left in it that died, half restored
    corpora with it. Raises StartupError where the folder can't be used, and what the catalog does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_away(folder, catalog)
    except OSError as error:
        raise StartupError(f"{folder} can't be used: {error.strerror}") from None


def _clear_away(folder: Path, catalog: Catalog) -> None:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_NOTE):
            name = path.name.removeprefix(_NOTE)
            try:
                if path.read_bytes() == _NEW:
                    catalog.delete(name)
                else:
                    catalog.engine(name).discard(name)
                log.warning("restore_undone", corpus=name)
            except ApiError as error:
                if error.status != 404:
                    raise
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def restore(
    uploaded: Path, name: str, catalog: Catalog, folder: Path, keep_until: datetime | None
) -> tuple[CorpusInfo, Manifest]:
    """Make the corpus `name` of a backup, whole or not at all; what it is then, and what the backup
    says of itself.

    uploaded: a folder with the backup as `corpus.db`. folder: that of the transfers. keep_until:
    replaces a corpus that is there, and keeps its present generation for so long; None refuses.
    Raises ApiError: 422 as check.py, 409 `corpus_exists`, `corpus_busy`, `generation_in_progress`,
    504 once the deadline has passed, and what the stores do.
    """
    told = check.manifest_of(uploaded / DATABASE)
    database = check.open_checked(uploaded)
    try:
        found = check.info_of(database)
        cut = Cut.of(replace(found, name=name))
        there = name in {info.name for info in catalog.list()} | set(catalog.damaged)
        if there and keep_until is None:
            raise corpus_exists(name)
        if there and keep_until is not None:
            _replace(cut, catalog, folder, database, keep_until)
        else:
            with _noted(folder, name, _NEW), catalog.adding(cut) as store:
                _fill(store, database, found)
    finally:
        database.close()
    log.info("corpus_restored", corpus=name, documents=told.documents)
    return catalog.get(name).info, told


def _replace(
    cut: Cut, catalog: Catalog, folder: Path, database: Database, keep_until: datetime
) -> None:
    name = cut.spec.name
    busy = catalog.generations(name)
    live, engine = catalog.get(name), catalog.engine(name)
    if not busy.acquire(blocking=False):
        raise _in_progress(name)
    try:
        if engine.dark(name) is not None:
            raise _in_progress(name)
        with _noted(folder, name, _REPLACED):
            try:
                dark = engine.build(cut)
                _fill(dark, database, check.info_of(database))
                with live.sealed():
                    engine.swap(name, keep_until)
            except BaseException:
                engine.discard(name)
                raise
            catalog.reopen(name)
    finally:
        busy.release()


def _in_progress(name: str) -> ApiError:
    return ApiError(
        409,
        "generation_in_progress",
        f"another generation of corpus '{name}' is being built: wait for it, or cancel its job",
    )


def _fill(store: CorpusStore, database: Database, found: CorpusInfo) -> None:
    waiting: list[NewDocument] = []
    documents = chunks = 0
    for part in check.documents(database, found):
        current().deadline.check()
        waiting += part
        if sum(len(document.chunks) for document in waiting) >= _CHUNKS:
            store.write(waiting)
            waiting = []
        documents += len(part)
        chunks += sum(len(document.chunks) for document in part)
    store.write(waiting)
    if (documents, chunks) != (found.documents, found.chunks):
        raise check.bad(f"it has {found.chunks} chunks, and {chunks} of them are of a document")


@contextmanager
def _noted(folder: Path, name: str, how: bytes) -> Iterator[None]:
    note = folder / f"{_NOTE}{name}"
    atomic_write(note, how)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
