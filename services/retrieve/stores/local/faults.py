"""What can go wrong with a corpus's files, in the words of the one error shape."""

import errno
import os
import sqlite3
from pathlib import Path

from shared.errors import ApiError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# SQLITE_ERROR: a table or column that should be there is not.
_RUBBISH = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_NO_UTF8 = "decode to UTF-8"
_PRIMARY = 0xFF  # an extended SQLite result code carries its primary code in the low byte


def write_failed(error: sqlite3.Error | OSError | ValueError, path: Path) -> ApiError:
    """The error for a write that the disk refused: 507 `storage_full` or `storage_failed`; or 500
    `corpus_damaged` where SQLite came upon rubbish. A ValueError is Tantivy's."""
    reason = str(error)
    if isinstance(error, sqlite3.Error):
        code = _primary(error)
        if _is_rubbish(error):
            return damaged(path, error)
        # A quota or a file size limit comes as a failed write, not as SQLITE_FULL.
        full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    else:
        # Tantivy tells the operating system's error in words, among many others; or it only says
        # that a thread of its own met one.
        causes = (*map(os.strerror, _FULL), "io::Error")
        told = [cause for cause in causes if cause in reason]
        full, reason = bool(told), (told or [reason])[0]
    if full:
        return ApiError(
            507,
            "storage_full",
            f"the disk of {path} took no more data ({reason}); nothing was changed: "
            "free space there and try again",
        )
    return ApiError(
        507,
        "storage_failed",
        f"{path} can't be written ({reason}); nothing was changed: check the disk and its rights",
    )


def read_failed(error: sqlite3.Error, path: Path) -> ApiError:
    """The error for a database that SQLite can't read: 500 `corpus_damaged` where the file is
    rubbish or not there, `storage_failed` where the disk is at fault (a full one, too: SQLite
    needs a little of it for reading)."""
    if _is_rubbish(error) or not path.is_file():
        return damaged(path, error)
    return ApiError(
        500,
        "storage_failed",
        f"{path} can't be read ({error}): check the disk, its free space and its rights",
    )


def _is_rubbish(error: sqlite3.Error) -> bool:
    # Bytes that are no UTF-8 where a text should be are told without a code.
    return _primary(error) in _RUBBISH or _NO_UTF8 in str(error)


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY


def damaged(path: Path, reason: object) -> ApiError:
    """The error for a database that can't be read: 500 `corpus_damaged`, naming the file."""
    if _NO_UTF8 in str(reason):  # SQLite's words repeat the document's
        reason = "a text in it is no UTF-8"
    return ApiError(
        500,
        "corpus_damaged",
        f"{path} can't be read ({reason}): restore it from a backup, or delete this corpus and "
        "load its documents again",
    )


def changes_lost(path: Path, lost: int, note: Path, log: Path | None) -> ApiError:
    """The error for a database without its last changes: 500 `corpus_damaged`. log: a copy of its
    damaged log."""
    kept = "" if log is None else f" (its log as it was is kept in {log})"
    return ApiError(
        500,
        "corpus_damaged",
        f"{path} lacks the last {lost} changes that were acknowledged, as after damage to its log"
        f"{kept}: restore it from a backup, or delete this corpus and load its documents again; to "
        f"go on with what there is, remove {note}",
    )


def newer(path: Path, found: int, known: int) -> ApiError:
    """The error for a database of a later version of refdesk: 500 `corpus_newer`."""
    return ApiError(
        500,
        "corpus_newer",
        f"{path} has schema {found}, and this refdesk reads up to {known}: upgrade refdesk",
    )


def corpus_closed(corpus: str) -> ApiError:
    """The error for using a corpus that was deleted while a request was on its way to it: 404."""
    return ApiError(404, "corpus_not_found", f"corpus '{corpus}' was deleted or closed meanwhile")
