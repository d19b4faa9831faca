"""Corpora in a folder of this machine: who holds it, and how corpora and generations come and go.

corpora/.lock            held by flock as long as the process lives; holds its id
corpora/format.json      {"format": 2}
corpora/<name>/          a corpus, see layout.py
corpora/.new-*           a corpus that is being made; removed on open
corpora/.trash-*         a corpus that is being deleted; removed on open

In a corpus's folder live.json alone says which generations there are: what it does not name is what
a process left that died, or what goes once the last search lets go of it.
"""

import shutil
import threading
import uuid
import weakref
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from services.retrieve.stores.analysis import analyser
from services.retrieve.stores.corpus import CORPUS_NAME
from services.retrieve.stores.engine import Cut, Generation, made_meanwhile
from services.retrieve.stores.local import layout
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense_gpu import Place, gpu
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.hold import check_format, hold
from services.retrieve.stores.local.layout import NEW, TRASH, Roles, folder_of
from services.retrieve.stores.local.store import LocalStore
from shared.durable import fsync_folder
from shared.errors import ApiError, StartupError
from shared.settings import Device
from shared.telemetry import get_logger

log = get_logger(__name__)


class LocalEngine:
    """An `Engine` (see services/retrieve/stores/engine.py) in a folder."""

    def __init__(self, folder: Path, lock: BinaryIO, place: Place | None) -> None:
        """Use `LocalEngine.at`."""
        self._folder = folder
        self._lock_file = lock
        self._place = place
        # Stores that this engine owns: being built, or live since a swap and not asked for yet.
        self._darks: dict[str, LocalStore] = {}
        self._swapped: dict[str, LocalStore] = {}
        self._stores: weakref.WeakSet[LocalStore] = weakref.WeakSet()
        self._going: set[Path] = set()  # folders that go when their last store has been let go of
        self._registry = threading.RLock()  # of the two above; nothing waits while it is held
        # Of each corpus, for whoever reads what there is of it and then changes it: another corpus
        # may be made in its place as soon as it is deleted, while work on the old one winds up.
        self._locks: dict[str, threading.RLock] = {}

    @classmethod
    def at(cls, folder: Path, device: Device = "cpu") -> "LocalEngine":
        """Take hold of a folder, which is made where there is none. What a process left in it that
        died is cleared away, and corpora of an older layout are brought to today's.

        device: where vectors are searched. Raises StartupError where the folder is in use by
        another process, of a newer version, or can't be written, and for a GPU that is not there.
        """
        place = gpu(device)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = hold(folder)
            try:
                check_format(folder)
                layout.clear_away(folder)
                for corpus in filter(_is_corpus, list(folder.iterdir())):
                    with suppress(ApiError):  # it is told when it is opened
                        layout.bring_forward(corpus)
                        layout.tidy(corpus)
            except BaseException:
                lock.close()
                raise
        except OSError as error:
            raise StartupError(
                f"the data folder {folder} can't be used ({error.strerror}): "
                "set REFDESK_DATA_DIR to a folder that this user may write"
            ) from error
        return cls(folder, lock, place)

    def names(self) -> list[str]:
        """See `Engine.names`."""
        return sorted(path.name for path in self._folder.iterdir() if _is_served(path))

    def open(self, name: str) -> LocalStore:
        """See `Engine.open`."""
        with self._alone(name):
            swapped = self._swapped.pop(name, None)
            if swapped is not None:
                return swapped
            corpus = self._folder / name
            layout.bring_forward(corpus)
            roles = layout.roles(corpus)
            if roles.generation is None:
                raise ApiError(404, "corpus_not_found", f"corpus '{name}' is not served from here")
            folder = folder_of(corpus, roles.generation)
            # Two that are written to would be in each other's way.
            opened = [one for one in self._of(folder) if not (one.closed or one.retired)]
            return opened[0] if opened else self._open_store(folder)

    def create(self, cut: Cut) -> LocalStore:
        """See `Engine.create`."""
        with self._alone(cut.spec.name):
            left = self._folder / cut.spec.name
            if left.is_dir() and layout.roles(left).generation is None:
                self.delete(cut.spec.name)  # of one that moved away and is no more, or never came
            path = self._make(cut, Roles(1), 1)
            try:
                return self._open_store(folder_of(path, 1))
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise

    def delete(self, name: str) -> None:
        """See `Engine.delete`; no harm where there is none."""
        for store in self._of(self._folder / name):  # who has sealed one may want the lock below
            store.close(keep=False)
        with self._alone(name):
            path, trash = self._folder / name, self._folder / f"{TRASH}{uuid.uuid4().hex}"
            # Nothing of this corpus is left that could get at the files of another in its place.
            for store in [one for one in self._of(path) if not one.closed]:
                store.close(keep=False)
            self._darks.pop(name, None)
            self._swapped.pop(name, None)
            # A corpus of this name that is made later has folders of the same names.
            with self._registry:
                self._going -= {folder for folder in self._going if folder.parent == path}
            if not path.is_dir():
                return
            try:
                path.rename(trash)
                fsync_folder(self._folder)
            except OSError as error:
                raise write_failed(error, self._folder) from error
        shutil.rmtree(trash, ignore_errors=True)  # what is left of it goes on the next open

    def dark(self, name: str) -> LocalStore | None:
        """See `Engine.dark`."""
        with self._alone(name):
            if name not in self._darks:
                corpus = self._folder / name
                number = layout.roles(corpus).dark
                if number is None:
                    return None
                self._darks[name] = self._open_store(folder_of(corpus, number))
            return self._darks[name]

    def build(self, cut: Cut, above: int = 0) -> LocalStore:
        """See `Engine.build`."""
        with self._alone(cut.spec.name):
            name = cut.spec.name
            self.discard(name)
            corpus = self._folder / name
            number = max([above, *(one.number for one in self.generations(name))]) + 1
            if corpus.is_dir():
                roles, place = layout.roles(corpus), max(layout.generations(corpus), default=0) + 1
                self._make_generation(corpus, place, cut, number, self._created_at(corpus, roles))
                layout.appoint(corpus, replace(roles, dark=place))
            else:
                place = 1
                self._make(cut, Roles(None, dark=place), number)
            try:
                self._darks[name] = self._open_store(folder_of(corpus, place))
            except BaseException:
                self.discard(name)
                raise
            return self._darks[name]

    def discard(self, name: str) -> None:
        """See `Engine.discard`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            store = self._darks.pop(name, None)
            if store is not None:
                store.close(keep=False)
            if roles.dark is not None:
                # Its room first: on a full disk nothing can be said before. A live.json that names
                # what is not there names nothing.
                with suppress(OSError):
                    trash = corpus / f"{TRASH}{uuid.uuid4().hex}"
                    folder_of(corpus, roles.dark).rename(trash)
                    shutil.rmtree(trash, ignore_errors=True)
                self._appoint(corpus, replace(roles, dark=None))

    def swap(self, name: str, keep_until: datetime | None) -> None:
        """See `Engine.swap`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            dark = self.dark(name)
            if dark is None:
                raise ApiError(
                    409,
                    "no_dark_generation",
                    f"corpus '{name}' has no generation that is being built",
                )
            if roles.generation is None:
                self._appoint(corpus, replace(roles, generation=roles.dark, dark=None))
            elif keep_until is None:
                raise made_meanwhile(name)
            else:
                with closing(Database.open(folder_of(corpus, roles.generation))) as database:
                    dark.succeed(database.info())
                until = keep_until.isoformat(timespec="seconds")
                self._appoint(corpus, Roles(roles.dark, previous=roles.generation, until=until))
            self._swapped[name] = self._darks.pop(name)
            log.info("generation_swapped", corpus=name, generation=dark.info.generation)

    def step_down(self, name: str, keep_until: datetime) -> None:
        """See `Engine.step_down`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            if roles.generation is not None:
                until = keep_until.isoformat(timespec="seconds")
                self._appoint(corpus, Roles(None, roles.generation, roles.dark, until))

    def revive(self, name: str, above: int = 0) -> LocalStore:
        """See `Engine.revive`."""
        with self._alone(name):
            corpus = self._folder / name
            previous = layout.roles(corpus).previous
            if previous is None:
                raise ApiError(
                    409, "no_previous_generation", f"corpus '{name}' keeps no previous generation"
                )
            number = max([above, *(one.number for one in self.generations(name))]) + 1
            store = self._open_store(folder_of(corpus, previous))
            self.discard(name)
            store.renumber(number)
            self._appoint(corpus, Roles(layout.roles(corpus).generation, dark=previous))
            self._darks[name] = store
            return store

    def shelve(self, name: str, keep_until: datetime) -> None:
        """See `Engine.shelve`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            store = self._darks.pop(name, None)
            if store is not None:
                store.close()
            if roles.dark is not None:
                until = keep_until.isoformat(timespec="seconds")
                self._appoint(corpus, Roles(roles.generation, previous=roles.dark, until=until))

    def forget(self, name: str, now: datetime) -> bool:
        """See `Engine.forget`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            if roles.previous is None or (roles.over is not None and now < roles.over):
                return False
            self._appoint(corpus, replace(roles, previous=None, until=None))
            return True

    def generations(self, name: str) -> Sequence[Generation]:
        """See `Engine.generations`."""
        with self._alone(name):
            corpus = self._folder / name
            roles = layout.roles(corpus)
            found = []
            for state, place in roles.states():
                with closing(Database.open(folder_of(corpus, place))) as database:
                    info, made_at = database.info(), database.made_at()
                until = roles.over if state == "previous" else None
                counts = (info.documents, info.chunks)
                found.append(
                    Generation(info.generation, state, Cut.of(info), *counts, made_at, until)
                )
            return sorted(found, key=lambda one: one.number)

    def close(self) -> None:
        """See `Engine.close`: it lets go of the folder."""
        for store in [*self._darks.values(), *self._swapped.values()]:
            store.close()
        self._darks.clear()
        self._swapped.clear()
        with self._registry:
            self._going.clear()  # another process may take hold of the folder, and clears it away
        self._lock_file.close()

    def _alone(self, name: str) -> threading.RLock:
        """To be held while generations of a corpus, or of one made in its place, come and go."""
        return self._locks.setdefault(name, threading.RLock())

    def _make(self, cut: Cut, roles: Roles, number: int) -> Path:
        """Make a corpus with one empty generation, 1 of its folder, whole or not at all."""
        path = self._folder / cut.spec.name
        new = self._folder / f"{NEW}{uuid.uuid4().hex}"
        try:
            new.mkdir()
            self._make_generation(new, 1, cut, number, None)
            layout.appoint(new, roles)
            new.rename(path)
            fsync_folder(self._folder)
        except OSError as error:
            raise write_failed(error, self._folder) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return path

    def _make_generation(
        self, corpus: Path, place: int, cut: Cut, number: int, created_at: datetime | None
    ) -> None:
        """Make an empty generation in a corpus's folder, of which live.json knows nothing yet."""
        analyser(cut.spec.language)  # raises for an unknown language while there is nothing yet
        new, path = corpus / f"{NEW}{uuid.uuid4().hex}", folder_of(corpus, place)
        try:
            new.mkdir()
            Database.create(
                new,
                cut.spec,
                cut.stamp,
                cut.chunker,
                sparse=cut.sparse,
                generation=number,
                created_at=created_at,
            )
            fsync_folder(new)
            new.rename(path)
            fsync_folder(corpus)
        except OSError as error:
            raise write_failed(error, corpus) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _created_at(self, corpus: Path, roles: Roles) -> datetime | None:
        """When a corpus was created, if there is a generation of it that knows."""
        place = roles.generation or roles.previous
        if place is None:
            return None
        with closing(Database.open(folder_of(corpus, place))) as database:
            return database.info().created_at

    def _appoint(self, corpus: Path, roles: Roles) -> None:
        """Say which generation is what, and remove those that are none of it from then on."""
        before = layout.roles(corpus)
        layout.appoint(corpus, roles)
        for place in before.kept - roles.kept:
            folder = folder_of(corpus, place)
            with self._registry:
                self._going.add(folder)
            self._let_go(folder)

    def _open_store(self, folder: Path) -> LocalStore:
        store = LocalStore.open(folder, self._place)
        with self._registry:
            self._stores.add(store)
        weakref.finalize(store, self._released, folder).atexit = False
        return store

    def _of(self, folder: Path) -> list[LocalStore]:
        """The stores that are in memory of a generation, or of a whole corpus."""
        with self._registry:
            return [one for one in self._stores if folder in (one.folder, one.folder.parent)]

    def _released(self, folder: Path) -> None:
        """The last reference to a store of a generation is gone. That may be in the midst of
        anything, whatever locks are held there: so another thread waits for ours."""
        if folder in self._going:
            threading.Thread(target=self._let_go, args=(folder,), daemon=True).start()

    def _let_go(self, folder: Path) -> None:
        """Remove a generation that is to go, unless a search uses it still: then its end will."""
        trash = folder.with_name(f"{TRASH}{uuid.uuid4().hex}")
        # In one step: what has its name a moment later is a generation of another corpus.
        with self._registry:
            if folder not in self._going or not all(store.closed for store in self._of(folder)):
                return
            self._going.discard(folder)
            try:
                folder.rename(trash)
            except OSError:  # it goes on the next open
                return
        # Nobody waits for this: who swaps has writes wait.
        threading.Thread(target=shutil.rmtree, args=(trash, True), daemon=True).start()


def _is_corpus(path: Path) -> bool:
    return CORPUS_NAME.fullmatch(path.name) is not None and path.is_dir()


def _is_served(path: Path) -> bool:
    """Whether a path is a corpus that has a live generation, or can't be read."""
    if not _is_corpus(path):
        return False
    try:
        return layout.roles(path).generation is not None
    except ApiError:
        return True
