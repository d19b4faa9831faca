"""The folder of models: ``<name>/<revision>/`` with the files and `entry.json`, and beside the
revisions a text file ``current`` that names the one in use.

A revision appears whole or not at all: it is put together in ``.staging`` on the same file system,
flushed to the disk and renamed into place; ``current`` is written last. One process writes at a
time (a lock on ``.lock``, which the kernel frees however the process ends); reading needs no lock.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.durable import atomic_write, fsync_folder
from shared.modelstore.catalogue import CATALOGUE, DEFAULT
from shared.modelstore.entry import (
    ENTRY_FILE,
    ModelEntry,
    ModelMissingError,
    ModelStoreError,
    Problem,
    problems_of,
    read_entry,
    revision_of,
    valid_name,
    weights_format,
)
from shared.modelstore.progress import Progress, silent
from shared.modelstore.sources import NO_SPACE, Fetched, Source

_CURRENT = "current"


@dataclass(frozen=True)
class Revision:
    """One revision folder of the store, as found.

    current: the one that `require` gives. entry: None where its `entry.json` can't be read.
    problems: by presence and size only, from `revisions`; by hash as well, from `verify`.
    """

    name: str
    revision: str
    current: bool
    entry: ModelEntry | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Pulled:
    """What a pull came to: the entry, and whether it had to be fetched."""

    entry: ModelEntry
    fetched: bool


class ModelStore:
    """The models in one folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require(self, name: str) -> ModelEntry:
        """The current entry of a model whose files are all there in full length.

        Raises ModelMissingError, or ModelStoreError where a file is missing or cut short; both
        name the command that helps. It reads no weights: a service that must know every byte to
        be right calls `verify`.
        """
        revisions = [found for found in self.revisions(valid_name(name)) if found.current]
        if not revisions:
            raise self._missing(name)
        [found] = revisions
        if found.entry is None or found.problems:
            raise ModelStoreError(
                f"model {found.problems[0]}, in the store {self.folder}: run "
                f"`refdesk models pull {name}`"
            )
        return found.entry

    def revisions(self, name: str | None = None) -> list[Revision]:
        """Every revision of every model, or of the one called `name`; checked by size only.

        Ordered by name, the current revision before others.
        """
        return self._inspect(name, hashes=False, progress=silent)

    def verify(self, name: str | None = None, progress: Progress = silent) -> list[Revision]:
        """As `revisions`, with every byte read and compared with the recorded SHA-256.

        Raises ModelMissingError where there is nothing to verify.
        """
        found = self._inspect(valid_name(name) if name else None, hashes=True, progress=progress)
        if not found:
            raise self._missing(name)
        return found

    def pull(self, source: Source, progress: Progress = silent) -> Pulled:
        """Make what `source` brings the current revision of its model.

        Nothing is fetched if it is there already, by its hashes; a damaged one is replaced. Waits
        while another process pulls into the same store. Raises ModelStoreError, and then leaves
        the store as it was.
        """
        valid_name(source.name)
        try:
            with self._locked(progress):
                self._sweep()
                try:
                    return self._pull(source, progress)
                finally:
                    self._sweep()
        except OSError as error:
            raise self._failure(source, error) from None

    def _pull(self, source: Source, progress: Progress) -> Pulled:
        for found in self.revisions(source.name):
            entry = found.entry
            if entry is None or found.problems or not source.brings(entry):
                continue
            if not problems_of(entry, hashes=True, progress=progress):
                self._point(entry)
                return Pulled(entry, fetched=False)
        staging = self.folder / ".staging"
        staging.mkdir()
        # A name of its own, so that a program left over from a killed pull can't write into it.
        stage = Path(tempfile.mkdtemp(dir=staging))
        files, scratch = stage / "files", stage / "scratch"
        files.mkdir()
        scratch.mkdir()
        fetched = source.fetch(files, scratch, progress)
        entry = self._publish(source.name, fetched, stage)
        self._point(entry)
        return Pulled(entry, fetched=True)

    def _publish(self, name: str, fetched: Fetched, stage: Path) -> ModelEntry:
        """Give the staged files their entry and rename them into place as a whole."""
        contents = dict(fetched.files)
        kind = weights_format(contents)
        if kind is None:
            raise ModelStoreError(f"{fetched.source} brought no weights")
        revision = revision_of(contents)
        target = self.folder / name / revision
        entry = ModelEntry(
            name=name,
            revision=revision,
            source=fetched.source,
            licence=fetched.licence,
            kind=kind,
            files=contents,
            path=target,
        )
        files = stage / "files"
        atomic_write(files / ENTRY_FILE, entry.model_dump_json(indent=2).encode())
        for folder in (files, *(path for path in files.rglob("*") if path.is_dir())):
            fsync_folder(folder)
        target.parent.mkdir(exist_ok=True)
        if target.exists():  # damaged, or the same files from another source
            target.rename(stage / "replaced")
        files.rename(target)
        fsync_folder(target.parent)
        fsync_folder(self.folder)
        return entry

    def _point(self, entry: ModelEntry) -> None:
        if self._current(entry.name) != entry.revision:
            atomic_write(self.folder / entry.name / _CURRENT, f"{entry.revision}\n".encode())

    def _current(self, name: str) -> str | None:
        try:
            return (self.folder / name / _CURRENT).read_text("utf-8", "replace").strip()
        except OSError:
            return None

    def _inspect(self, name: str | None, *, hashes: bool, progress: Progress) -> list[Revision]:
        found = []
        for folder in sorted(self.folder.glob(f"{name or '*'}/*/"), key=str):
            if any(part.startswith(".") for part in folder.relative_to(self.folder).parts):
                continue
            model, revision = folder.parent.name, folder.name
            entry: ModelEntry | None = None
            try:
                entry = read_entry(folder)
                problems = problems_of(entry, hashes=hashes, progress=progress)
            except ModelStoreError as error:
                problems = [Problem(model, revision, ENTRY_FILE, str(error))]
            current = self._current(model) == revision
            found.append(Revision(model, revision, current, entry, tuple(problems)))
        return sorted(found, key=lambda one: (one.name, not one.current, one.revision))

    @contextlib.contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another pull into this store", 0, None)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sweep(self) -> None:
        """Remove what a pull leaves behind, this one's or one that was killed."""
        shutil.rmtree(self.folder / ".staging", ignore_errors=True)
        for unfinished in self.folder.glob(f"*/.{_CURRENT}.*"):
            unfinished.unlink(missing_ok=True)

    def _missing(self, name: str | None) -> ModelMissingError:
        what = f"model {name} is not in" if name else "no model is in"
        wanted = "default" if name is None or name in DEFAULT else name
        if wanted != "default" and wanted not in CATALOGUE:
            wanted = "FOLDER` or `refdesk models pull ORGANISATION/NAME"
        return ModelMissingError(
            f"{what} the store {self.folder}: run `refdesk models pull {wanted}`"
        )

    def _failure(self, source: Source, error: OSError) -> ModelStoreError:
        if error.errno in NO_SPACE:
            return ModelStoreError(
                f"there is no room for {source.name} in {self.folder} ({os.strerror(error.errno)}):"
                " free some space, or set REFDESK_MODELS_DIR to a folder on another disk"
            )
        where = f" ({error.filename})" if error.filename else ""
        return ModelStoreError(
            f"{source.name} could not be pulled: {error.strerror or error}{where}"
        )
