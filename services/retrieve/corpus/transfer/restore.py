"""A backup becomes a corpus: checked as a whole, then written anew, and there at once.

It is built as a dark generation, which nobody sees, and swapped in. What was written meanwhile to
the corpus whose place it takes is carried over first. A note on the disk says which generation it
is, so that what a process leaves behind that died is removed when the next one starts.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from services.retrieve.corpus.catalog import Catalog, corpus_exists
from services.retrieve.corpus.reindex.target import preferences_of
from services.retrieve.corpus.transfer import check
from services.retrieve.corpus.transfer.carry import Carrying
from services.retrieve.corpus.transfer.manifest import Manifest
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.engine import Cut, Engine
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.layout import DATABASE
from services.retrieve.stores.state import RetiredError
from shared.context import current
from shared.durable import atomic_write
from shared.errors import ApiError, StartupError
from shared.telemetry import get_logger

_CHUNKS = 2048  # written at a time
_NOTE = "restoring-"  # and the corpus's name
_TURNS = 3  # of carrying over before writes wait for the last one

Note = Callable[[Engine], None]  # has the note on the disk name an engine's dark generation

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
            name, begun = path.name.removeprefix(_NOTE), path.read_text()
            try:
                for engine in catalog.engines.values():
                    _undo(engine, name, begun)
            except ApiError as error:  # such as that of a damaged corpus: at the next start
                log.warning("restore_not_undone", corpus=name, reason=error.message)
                continue
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _undo(engine: Engine, name: str, begun: str) -> None:
    """Remove the dark generation of a restore that died, and no other: what is live by now, or
    built, may be another process's. begun: as noted; empty where it died before it had any."""
    for one in engine.generations(name):
        own = one.made_at.isoformat() == begun if begun else one.documents == 0
        if one.state == "dark" and own:
            engine.discard(name)
            log.warning("restore_undone", corpus=name)


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
            with _noted(folder, name) as note, catalog.adding(cut) as store:
                note(catalog.engine_named(store.info.engine))
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
        if any(one.state == "dark" for one in engine.generations(name)):
            raise _in_progress(name)
        with _noted(folder, name) as note, closing(Carrying(live, folder)) as carrying:
            dark = engine.build(cut)
            try:
                note(engine)
                found = check.info_of(database)
                _fill(dark, database, found)
                for _ in range(_TURNS):
                    carrying.carry(dark)
                with live.sealed():
                    carrying.carry(dark)
                    if preferences_of(dark.info) != preferences_of(found):
                        dark.configure(preferences_of(found))
                    engine.swap(name, keep_until)
            except BaseException:
                engine.discard(name)
                raise
            catalog.reopen(name)
    except RetiredError:  # another process has swapped its generations
        raise _in_progress(name) from None
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
def _noted(folder: Path, name: str) -> Iterator[Note]:
    path = folder / f"{_NOTE}{name}"

    def note(engine: Engine) -> None:
        for one in engine.generations(name):
            if one.state == "dark":  # else it went with its corpus
                atomic_write(path, one.made_at.isoformat().encode())

    atomic_write(path, b"")
    try:
        yield note
    finally:
        path.unlink(missing_ok=True)
