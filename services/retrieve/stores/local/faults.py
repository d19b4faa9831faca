"""What can go wrong with a corpus's files, in the words of the one error shape."""

import errno
import sqlite3
from pathlib import Path

from shared.errors import ApiError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PRIMARY = 0xFF  # an extended SQLite result code carries its primary code in the low byte


def write_failed(error: sqlite3.Error | OSError | ValueError, path: Path) -> ApiError:
    """The error for a write that the disk refused: 507 `storage_full` or `storage_failed`, or
    500 `corpus_damaged` where SQLite came upon rubbish. A ValueError is Tantivy's."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return damaged(path, error)
        # A quota or a file size limit comes as a failed write, not as SQLITE_FULL.
        full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    elif isinstance(error, OSError):
        full = error.errno in _FULL
    else:  # Tantivy tells the operating system's error in words only
        full = any(f"os error {number}" in str(error) for number in _FULL)
    if full:
        return ApiError(
            507,
            "storage_full",
            f"the disk of {path} took no more data ({error}); nothing was changed: "
            "free space there and try again",
        )
    return ApiError(
        507,
        "storage_failed",
        f"{path} can't be written ({error}); nothing was changed: check the disk and its rights",
    )


def damaged(path: Path, reason: object) -> ApiError:
    """The error for a database that can't be read: 500 `corpus_damaged`, naming the file."""
    return ApiError(
        500,
        "corpus_damaged",
        f"{path} can't be read ({reason}): restore it from a backup, or delete this corpus and "
        "load its documents again",
    )


def newer(path: Path, found: int, known: int) -> ApiError:
    """The error for a database of a later version of refdesk: 500 `corpus_newer`."""
    return ApiError(
        500,
        "corpus_newer",
        f"{path} has schema {found}, and this refdesk reads up to {known}: upgrade refdesk",
    )


def corpus_closed(path: Path) -> ApiError:
    """The error for using a corpus that was deleted while a request was on its way to it: 404."""
    return ApiError(
        404, "corpus_not_found", f"corpus '{path.parent.name}' was deleted or closed meanwhile"
    )
