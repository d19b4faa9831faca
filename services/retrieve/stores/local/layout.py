"""The folder of a corpus: its generations, and the file that says which of them is what.

<name>/live.json         which generation is live, which the previous one, which is being built
<name>/g1/, g2/, …       a generation each: corpus.db, lexical/, dense/
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.sums import require_sum, row_sum
from shared.durable import atomic_write, fsync_folder
from shared.errors import ApiError
from shared.telemetry import get_logger

LIVE = "live.json"
DATABASE, LEXICAL, DENSE = "corpus.db", "lexical", "dense"
NEW, TRASH = ".new-", ".trash-"
_SUM = "checksum"
_GENERATION = re.compile(r"g([1-9][0-9]{0,8})")

log = get_logger(__name__)


@dataclass(frozen=True)
class Roles:
    """Which generation of a corpus is what, by the numbers of their folders. `generation` is the
    live one, None where another engine has it. until: when the previous one is forgotten, ISO 8601.
    """

    generation: int | None
    previous: int | None = None
    dark: int | None = None
    until: str | None = None

    @property
    def kept(self) -> set[int]:
        """All that there should be."""
        return {place for _, place in self.states()}

    def states(self) -> list[tuple[Literal["live", "dark", "previous"], int]]:
        """What each generation is that there should be."""
        live, previous, dark = self.generation, self.previous, self.dark
        found: list[tuple[Literal["live", "dark", "previous"], int]] = []
        if live is not None:
            found.append(("live", live))
        if previous is not None:
            found.append(("previous", previous))
        if dark is not None:
            found.append(("dark", dark))
        return found

    @property
    def over(self) -> datetime | None:
        """`until` as a time."""
        return datetime.fromisoformat(self.until) if self.until else None


def generations(corpus: Path) -> list[int]:
    """The generations in a corpus's folder, by ascending number."""
    found = [_GENERATION.fullmatch(path.name) for path in corpus.iterdir() if path.is_dir()]
    return sorted(int(match[1]) for match in found if match)


def folder_of(corpus: Path, generation: int) -> Path:
    """Where a generation of a corpus lies."""
    return corpus / f"g{generation}"


def corpus_of(folder: Path) -> str:
    """The name of the corpus that a folder is a generation of; its own where it is none."""
    return folder.parent.name if _GENERATION.fullmatch(folder.name) else folder.name


def roles(corpus: Path) -> Roles:
    """Which generation is what; the sole one is live where nothing says so, and nothing that it is
    not. None are where there is no folder. Raises ApiError 500 `corpus_damaged`.
    """
    if not corpus.is_dir():
        return Roles(None)
    said, there = b"", generations(corpus)
    try:
        said = (corpus / LIVE).read_bytes()
        found = _roles_of(json.loads(said))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        unread = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        if len(there) != 1 or unread or _says_other(said, there[0]):
            raise _damaged(corpus, there, error) from error
        return Roles(there[0])
    if found.generation is not None and found.generation not in there:
        raise _damaged(corpus, there, f"it names g{found.generation}, which is not there")
    return Roles(
        found.generation,
        previous=found.previous if found.previous in there else None,
        dark=found.dark if found.dark in there else None,
        until=found.until if found.previous in there else None,
    )


def appoint(corpus: Path, wanted: Roles) -> None:
    """Write which generation is what, on the disk when this returns.

    Raises ApiError 507, and then the file says what it said before: whoever was about to serve
    another generation must not, as the next process would not. A file that is in its place, while
    its folder can't be synced, is taken back; where not even that can be done, it holds.
    """
    told = {**asdict(wanted), _SUM: _sum_of(wanted)}
    file, data = corpus / LIVE, json.dumps(told).encode() + b"\n"
    before = _said(file)
    try:
        atomic_write(file, data)
    except OSError as error:
        if before and _said(file) == data:
            with suppress(OSError):
                atomic_write(file, before)
        if _said(file) != data:
            raise write_failed(error, file) from error
        log.error("roles_not_synced", file=str(file), reason=str(error))  # noqa: TRY400 - it says it all


def tidy(corpus: Path) -> None:
    """Remove what a process left in a corpus's folder that died, and nothing that is not ours.

    Raises ApiError 500 `corpus_damaged` where nobody can say what is left over, or 507.
    """
    found = roles(corpus)
    if not found.kept:
        shutil.rmtree(corpus, ignore_errors=True)
        return
    if not (corpus / LIVE).is_file():
        appoint(corpus, found)
    clear_away(corpus)
    for path in corpus.glob(f".{LIVE}.*"):
        path.unlink(missing_ok=True)
    for place in generations(corpus):
        if place not in found.kept:
            shutil.rmtree(folder_of(corpus, place), ignore_errors=True)


def clear_away(folder: Path) -> None:
    """Remove from a folder what was not made to the end, and what was to be removed."""
    for path in list(folder.iterdir()):
        if path.name.startswith((NEW, TRASH)):
            shutil.rmtree(path, ignore_errors=True)


def bring_forward(corpus: Path) -> None:
    """Make today's layout of a corpus whose database lies in its folder itself, as format 1 had it.

    A process that dies meanwhile leaves something that the next one goes on with. Raises ApiError
    507 where the disk refuses.
    """
    old, new = corpus / DATABASE, folder_of(corpus, 1)
    left = [corpus / f"{DATABASE}-wal", corpus / LEXICAL, corpus / DENSE]
    if not any(path.exists() for path in (old, *left)):
        return
    try:
        new.mkdir(exist_ok=True)
        if old.exists():
            _checkpoint(old)
            # From here on this is the truth. What of its log could not be put into it follows
            # before anyone opens it.
            old.rename(new / DATABASE)
        for path in left:
            if path.is_dir() and (new / path.name).exists():
                shutil.rmtree(path)  # derived, and there is a newer one
            elif path.exists():
                path.rename(new / path.name)
        (corpus / f"{DATABASE}-shm").unlink(missing_ok=True)
        fsync_folder(new)
        fsync_folder(corpus)
    except OSError as error:
        raise write_failed(error, corpus) from error


def _checkpoint(file: Path) -> None:
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as db:  # damage is found later
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _said(file: Path) -> bytes:
    """What a file says; nothing where it can't be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _says_other(said: bytes, sole: int) -> bool:
    """Whether a damaged file says in one place or another that the sole generation is not live, as
    of a corpus that was half restored or moved away. It does so twice: damage leaves one."""
    return any(
        part in said
        for part in (b'"generation": n', b'"dark": %d' % sole, b'"previous": %d' % sole)
    )


def _roles_of(told: dict[str, object]) -> Roles:
    """What a file says. What is written by hand has no checksum, and is held to the same form."""
    unknown = told.keys() - {"generation", "previous", "dark", "until", _SUM}
    if unknown:
        raise ValueError(f"it has {', '.join(sorted(unknown))}")
    until = told["until"]
    if until is not None and not isinstance(until, str):
        raise ValueError(f"{until!r} is no time")
    generation, previous = _number(told["generation"]), _number(told["previous"])
    found = Roles(generation, previous, _number(told.get("dark")), until)
    if len(found.kept) < len(found.states()):
        raise ValueError("it names a generation twice")
    if _SUM in told:
        require_sum(_sum_of(found), int(str(told[_SUM])), "it")
    _ = found.over
    return found


def _sum_of(wanted: Roles) -> int:
    return row_sum(wanted.generation, wanted.previous, wanted.dark, wanted.until)


def _number(value: object) -> int | None:
    if value is None or (isinstance(value, int) and value > 0):
        return value
    raise ValueError(f"{value!r} is no generation")


def _damaged(corpus: Path, there: list[int], reason: object) -> ApiError:
    if not there:
        return ApiError(
            500,
            "corpus_damaged",
            f"{corpus} holds no generation of the corpus: restore it from a backup, or delete this "
            "corpus and load its documents again",
        )
    named = ", ".join(f"g{number}" for number in there)
    example = json.dumps(asdict(Roles(there[-1])))
    return ApiError(
        500,
        "corpus_damaged",
        f"{corpus / LIVE} can't be read ({reason}), and the corpus has the generations {named}: "
        f"write into it which one is live (null where none was), such as {example}, or restore it "
        "from a backup",
    )
