"""The folder of corpora: which there are, who holds it, and how they come and go.

corpora/.lock            held by flock as long as the process lives; holds its id
corpora/format.json      {"format": 1}
corpora/<name>/          one corpus
corpora/.new-*           a corpus that is being made; removed on open
corpora/.trash-*         a corpus that is being deleted; removed on open
"""

import fcntl
import json
import os
import re
import shutil
import threading
import uuid
from pathlib import Path
from typing import BinaryIO

from services.retrieve.corpus.chunk import CHUNKER
from services.retrieve.stores.base import CorpusInfo, CorpusSpec, CorpusStore, ModelStamp
from services.retrieve.stores.local.analysis import analyser
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense_gpu import Place, gpu
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.store import LocalStore
from shared.durable import atomic_write, fsync_folder
from shared.errors import ApiError, StartupError
from shared.settings import Device
from shared.telemetry import get_logger

FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NEW, _TRASH = ".new-", ".trash-"

log = get_logger(__name__)


class Catalog:
    """The open corpora of one data folder. Safe to use from several threads."""

    def __init__(self, folder: Path, lock: BinaryIO, place: Place | None = None) -> None:
        """Use `Catalog.open`."""
        self._folder = folder
        self._place = place
        self._lock_file = lock
        self._stores: dict[str, CorpusStore] = {}
        self._damaged: dict[str, ApiError] = {}
        # Guards creating and deleting; looking up needs none, a dict's reads are atomic.
        self._changes = threading.Lock()

    @classmethod
    def open(cls, folder: Path, device: Device = "cpu") -> "Catalog":
        """Take hold of the folder (made where there is none) and open every corpus in it.

        device: where vectors are searched. A corpus that can't be read does not keep the others
        from being served: it is logged, listed in `damaged`, and each use of it raises that error.
        Raises StartupError where the folder is in use by another process, of a newer version, or
        can't be written, and for a GPU that is not there.
        """
        place = gpu(device)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _hold(folder)
        except OSError as error:
            raise StartupError(
                f"the data folder {folder} can't be used ({error.strerror}): "
                "set REFDESK_DATA_DIR to a folder that this user may write"
            ) from error
        catalog = cls(folder, lock, place)
        try:
            _check_format(folder)
            catalog._open_all()
        except BaseException:
            catalog.close()
            raise
        return catalog

    @property
    def damaged(self) -> dict[str, str]:
        """Corpora that can't be used: name to what is wrong with them and what to do."""
        return {name: error.message for name, error in self._damaged.copy().items()}

    def stores(self) -> list[CorpusStore]:
        """The usable corpora, by name."""
        stores = self._stores.copy()  # atomic: others come and go in other threads
        return [stores[name] for name in sorted(stores)]

    def list(self) -> list[CorpusInfo]:
        """The usable corpora as they are now, by name."""
        return [store.info for store in self.stores()]

    def get(self, name: str) -> CorpusStore:
        """An open corpus.

        Raises ApiError 404 where there is none of that name, 500 where it is damaged.
        """
        store = self._stores.get(name)
        if store is not None:
            return store
        error = self._damaged.get(name)
        if error is not None:
            # A new one each time: an exception that is raised again keeps the frames of each time.
            raise ApiError(error.status, error.code, error.message)
        raise ApiError(
            404,
            "corpus_not_found",
            f"there is no corpus '{name}': create it with PUT /corpora/{name}, "
            "or load documents with `refdesk ingest`",
        )

    def create(
        self, spec: CorpusSpec, stamp: ModelStamp, *, sparse: bool = False
    ) -> tuple[CorpusInfo, bool]:
        """Make an empty corpus, whole or not at all; (its info, True), or False if it was there.

        sparse: whether its chunks shall have sparse vectors; one that was there stays as it is.
        Raises ApiError: 422 for a bad name or an unknown language, 409 where the corpus exists with
        other settings (an empty description asks for nothing), 500 where it exists and is damaged,
        507 for a full disk.
        """
        if not _NAME.fullmatch(spec.name):
            raise ApiError(
                422,
                "bad_corpus_name",
                f"'{spec.name[:80]}' can't name a corpus: use 1 to 63 small letters, digits, "
                "'-' and '_', the first a letter or digit",
                param="name",
            )
        with self._changes:
            if spec.name in self._stores or spec.name in self._damaged:
                info = self.get(spec.name).info
                _require_same(spec, info)
                return info, False
            analyser(spec.language)  # raises for an unknown language while there is nothing yet
            path = self._folder / spec.name
            new = self._folder / f"{_NEW}{uuid.uuid4().hex}"
            try:
                new.mkdir()
                Database.create(new, spec, stamp, CHUNKER, sparse=sparse)
                fsync_folder(new)
                new.rename(path)
                fsync_folder(self._folder)
            except OSError as error:
                raise write_failed(error, self._folder) from error
            finally:
                shutil.rmtree(new, ignore_errors=True)
            try:
                store = LocalStore.open(path, self._place)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
            self._stores[spec.name] = store
            log.info("corpus_created", corpus=spec.name)
            return store.info, True

    def delete(self, name: str) -> None:
        """Delete a corpus, whole or not at all; a damaged one can be deleted, too.

        Raises ApiError 404 where there is none of that name, 507 where the disk refuses.
        """
        with self._changes:
            if name not in self._damaged:
                self.get(name)
            path, trash = self._folder / name, self._folder / f"{_TRASH}{uuid.uuid4().hex}"
            store = self._stores.pop(name, None)
            if store is not None:
                # Before its folder moves: a write that is under way ends well, and nothing of this
                # corpus is left that could get at the files of another one made in its place.
                store.close(keep=False)
            try:
                path.rename(trash)
                fsync_folder(self._folder)
            except OSError as error:
                if store is not None and path.is_dir():
                    self._open(path)
                raise write_failed(error, self._folder) from error
            self._damaged.pop(name, None)
        shutil.rmtree(trash, ignore_errors=True)  # what is left of it goes on the next open
        log.info("corpus_deleted", corpus=name)

    def close(self) -> None:
        """Close every corpus and let go of the folder."""
        with self._changes:
            for store in self._stores.values():
                store.close()
            self._stores.clear()
            self._lock_file.close()

    def _open_all(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith((_NEW, _TRASH)):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and _NAME.fullmatch(path.name):
                self._open(path)

    def _open(self, path: Path) -> None:
        """Open the corpus in a folder; one that can't be read is damaged from then on."""
        try:
            self._stores[path.name] = LocalStore.open(path, self._place)
        except ApiError as error:
            self._damaged[path.name] = error
            log.error("corpus_damaged", corpus=path.name, reason=error.message)  # noqa: TRY400 - the reason says it all


def _hold(folder: Path) -> BinaryIO:
    """Lock the folder for this process; the lock goes when the file is closed or the process dies.

    Raises StartupError naming the process that has it.
    """
    file = (folder / ".lock").open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(32).decode("ascii", "replace").strip() or "unknown"
        file.close()
        raise StartupError(
            f"the data folder {folder} is in use by process {owner}: stop it first, "
            "or set REFDESK_DATA_DIR to another folder"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n".encode())
    file.flush()
    return file


def _check_format(folder: Path) -> None:
    """Stamp a new folder; raise StartupError for one that this version can't read."""
    path = folder / "format.json"
    if not path.exists():
        atomic_write(path, json.dumps({"format": FORMAT}).encode() + b"\n")
        return
    try:
        found = int(json.loads(path.read_bytes())["format"])
    except (ValueError, KeyError, TypeError):
        raise StartupError(
            f'{path} is damaged: it should hold {{"format": {FORMAT}}}; restore it'
        ) from None
    if found != FORMAT:
        raise StartupError(
            f"the data folder {folder} has format {found}, and this refdesk reads format {FORMAT}: "
            "upgrade refdesk, or set REFDESK_DATA_DIR to another folder"
        )


def _require_same(spec: CorpusSpec, info: CorpusInfo) -> None:
    wanted = {
        "description": spec.description or info.description,
        "language": spec.language,
        "chunk_tokens": spec.chunk_tokens,
        "chunk_overlap": spec.chunk_overlap,
        "curate": info.curate if spec.curate is None else spec.curate,
    }
    for name, value in wanted.items():
        found = getattr(info, name)
        if value != found:
            raise ApiError(
                409,
                "corpus_exists",
                f"corpus '{spec.name}' exists with {name} {found!r}, not {value!r}: leave {name} "
                "as it is, delete the corpus first, or take another name",
                param=name,
            )
