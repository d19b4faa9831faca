"""Finds the files to load: those that were named, and those of folders."""

import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.cli.failures import CliError
from shared.cli.kinds import ARCHIVE, ONE_PER_LINE, is_read
from shared.cli.sources import (
    Failure,
    LeftOut,
    SourceFile,
    hidden,
    several,
)


@dataclass(frozen=True)
class Rules:
    """Which files of a folder, or members of an archive, are taken.

    include: globs of which one must match the name or the relative path; without any the suffix
    decides. exclude: globs of which none may, of files and of folders. prefix: stands before ids.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    prefix: str = ""

    def why_not(self, relative: str) -> str | None:
        """Why a file is left out, by its path in its folder; None if it is taken."""
        if self.excludes(relative):
            return "matches --exclude"
        if self.include:
            return None if _matches(relative, self.include) else "does not match --include"
        if Path(relative).suffix.lower() == ARCHIVE:
            return "an archive: name it itself, or with --include"
        return None if is_read(relative) else "of a kind that is not read"

    def why_no_member(self, name: str) -> str | None:
        """Why a member of an archive is left out; None if it is taken."""
        if several(Path(name)):
            return (
                "an archive in an archive: unpack it first"
                if name.lower().endswith(ARCHIVE)
                else "lines of documents in an archive: unpack it first"
            )
        return self.why_not(name)

    def excludes(self, relative: str) -> bool:
        """Whether a file or folder is left out with all that it holds."""
        return _matches(relative, self.exclude)


def _matches(relative: str, globs: Sequence[str]) -> bool:
    name = relative.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(name, one) or fnmatch.fnmatchcase(relative, one) for one in globs
    )


@dataclass
class Found:
    """The files to read, in order, and what was left out or can't be read, with why.

    empty: those of the given paths in which there was nothing to read.
    """

    files: list[SourceFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unreadable: list[Failure] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def find_files(paths: Sequence[str], rules: Rules) -> Found:
    """The files that `paths` mean, in the order of their names.

    A path may be a file, a folder, or a glob that the shell left as it is. Hidden files and folders
    of a folder are not looked at. A file that is named itself is always taken. Raises CliError for
    a path that does not exist.
    """
    found = Found()
    for path in paths:
        before = len(found.files)
        for one, root in _named(path):
            try:
                status = one.stat()
            except OSError as error:
                found.unreadable.append(Failure(str(one), error.strerror or "can't be read"))
                continue
            if stat.S_ISDIR(status.st_mode):
                _walk(one, root or one, rules, found)
            else:
                _add(one, status, root, rules, found)
        if len(found.files) == before:
            found.empty.append(path)
    found.files = list(dict.fromkeys(found.files))  # of paths that overlap each file is taken once
    return found


def _named(path: str) -> Iterator[tuple[Path, Path | None]]:
    """The files and folders that an argument means; with a glob's also the folder before its first
    special character, which their ids are relative to."""
    if os.path.lexists(path):
        yield Path(path), None
        return
    if not glob.has_magic(path):
        raise CliError(f"there is no file or folder {path}")
    parts = Path(path).parts
    plain = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    matches = sorted(Path(one) for one in glob.glob(path, recursive=True))
    if not matches:
        raise CliError(f"nothing matches {path}")
    for one in matches:
        # A folder's files are matches of their own where `**` matches the folder.
        if "**" not in parts or not one.is_dir():
            yield one, Path(*parts[:plain])


def _add(path: Path, status: os.stat_result, root: Path | None, rules: Rules, found: Found) -> None:
    """A file that was named itself."""
    relative = path.name if root is None else path.relative_to(root).as_posix()
    if not stat.S_ISREG(status.st_mode):
        found.unreadable.append(Failure(str(path), "not a regular file", id=""))
    elif root is not None and not path.resolve().is_relative_to(root.resolve()):
        found.left_out.append(LeftOut(str(path), "a link that leaves the folder"))
    elif root is not None and rules.excludes(relative):
        found.left_out.append(LeftOut(str(path), "matches --exclude"))
    else:
        # What an archive that was named holds is as in a folder that was.
        name = "" if path.suffix.lower() == ARCHIVE else relative
        _keep(path, name, status, rules, found)


def _walk(folder: Path, root: Path, rules: Rules, found: Found) -> None:
    """The files of a folder and all folders in it; ids are relative to `root`."""
    inside = root.resolve()

    def refuse(error: OSError) -> None:
        found.unreadable.append(Failure(str(error.filename), error.strerror or "can't be read"))

    for here, folders, names in os.walk(folder, onerror=refuse):
        kept = []
        for name in sorted(folders):
            path = Path(here, name)
            if hidden(name):
                continue
            if rules.excludes(path.relative_to(root).as_posix()):
                found.left_out.append(LeftOut(str(path), "matches --exclude"))
            elif path.is_symlink():
                found.left_out.append(LeftOut(str(path), "a link to a folder"))
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            if not hidden(name):
                _take(Path(here, name), root, inside, rules, found)


def _take(path: Path, root: Path, inside: Path, rules: Rules, found: Found) -> None:
    relative = path.relative_to(root).as_posix()
    if reason := rules.why_not(relative):
        found.left_out.append(LeftOut(str(path), reason))
        return
    try:
        where, status = path.resolve(strict=True), path.stat()
    except (FileNotFoundError, RuntimeError):  # the latter for links that go in circles
        found.left_out.append(LeftOut(str(path), "a link that leads nowhere"))
    except OSError as error:
        found.unreadable.append(
            Failure(str(path), error.strerror or "can't be read", id=rules.prefix + relative)
        )
    else:
        if not where.is_relative_to(inside):
            found.left_out.append(LeftOut(str(path), "a link that leaves the folder"))
        elif not stat.S_ISREG(status.st_mode):
            found.left_out.append(LeftOut(str(path), "not a regular file"))
        else:
            name = f"{relative}/" if path.suffix.lower() == ARCHIVE else relative
            _keep(path, name, status, rules, found)


def _keep(path: Path, name: str, status: os.stat_result, rules: Rules, found: Found) -> None:
    lines = path.suffix.lower() in ONE_PER_LINE  # which bring their own ids
    before = rules.prefix if lines else rules.prefix + name
    found.files.append(SourceFile(path, before, status.st_size))
