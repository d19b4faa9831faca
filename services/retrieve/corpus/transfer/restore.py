"""A backup becomes a corpus: checked as a whole, then written anew, and there at once.

It is built as a dark generation, which nobody sees, and swapped in. What was written meanwhile to
the corpus whose place it takes is carried over first. A note on the disk says which generation it
is, so that what a process leaves behind that died, or could not remove, is removed when the next
one starts.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
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
from services.retrieve.stores.remote import Shared
from services.retrieve.stores.state import RetiredError
from shared.context import current
from shared.durable import atomic_write
from shared.errors import ApiError, StartupError
from shared.telemetry import get_logger

_CHUNKS = 2048  # written at a time
_NOTE = "restoring-"  # the corpus's name, which has no dot, and .<a name of its own>
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
            try:
                _undo(path, catalog)
            except ApiError as error:  # such as that of a damaged corpus: at the next start
                log.warning("restore_not_undone", note=path.name, reason=error.message)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _undo(path: Path, catalog: Catalog) -> None:
    """Remove the dark generation that a note names, and no other: what is live by now, or built,
    may be another process's. Then the note."""
    name, begun = path.name.removeprefix(_NOTE).split(".")[0], path.read_text()
    for engine in catalog.engines.values():
        for one in engine.generations(name):
            # An empty note is of a restore that died before it had any, or just then.
            new = one.documents == 0 and not isinstance(engine, Shared)
            own = one.made_at.isoformat() == begun if begun else new
            if one.state == "dark" and own:
                engine.discard(name)
                log.warning("restore_undone", corpus=name)
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
            with _noted(folder, name, catalog) as note, catalog.adding(cut) as store:
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
        for left in folder.glob(f"{_NOTE}{name}.*"):  # by a restore that could not be undone
            with suppress(FileNotFoundError):  # that restore has just come to its end
                _undo(left, catalog)
        if any(one.state == "dark" for one in engine.generations(name)):
            raise _in_progress(name)
        with _noted(folder, name, catalog) as note, closing(Carrying(live, folder)) as carrying:
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


def _any_dark(name: str, catalog: Catalog) -> bool:
    engines = catalog.engines.values()
    return any(one.state == "dark" for engine in engines for one in engine.generations(name))


@contextmanager
def _noted(folder: Path, name: str, catalog: Catalog) -> Iterator[Note]:
    path = folder / f"{_NOTE}{name}.{uuid.uuid4().hex}"

    def note(engine: Engine) -> None:
        for one in engine.generations(name):
            if one.state == "dark":  # else it went with its corpus
                atomic_write(path, one.made_at.isoformat().encode())

    atomic_write(path, b"")
    try:
        yield note
    except BaseException:
        with suppress(ApiError, OSError):  # what can't be removed now is removed at the next start
            # An empty one waits till then if anything is dark: now that may be another's.
            if path.stat().st_size or not _any_dark(name, catalog):
                _undo(path, catalog)
        raise
    path.unlink(missing_ok=True)
