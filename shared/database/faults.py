"""What can go wrong with a database, in the words of the one error shape."""

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from shared.database.purpose import Purpose
from shared.errors import ApiError

_PRIMARY = 0xFF  # an extended SQLite result code carries its primary code in the low byte
_RUBBISH = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A quota or a file size limit comes as a failed write, not as SQLITE_FULL.
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PG_FULL = ("53100", "53200")  # disk_full, out_of_memory
_PG_READ_ONLY = "25006"  # of a server that became a standby
FULL_DISK, NOT_WRITABLE = "storage_full", "storage_failed"
_RETRY_AFTER_S = "2"


def failed(error: SQLAlchemyError, where: str, purpose: Purpose) -> ApiError | None:
    """The error for a failure of the database at `where`; None for a defect of ours."""
    if isinstance(error, NoConnectionError):
        return _unavailable(where, "all connections are in use", purpose)
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig, where, purpose)
    state = getattr(error.orig, "sqlstate", None)
    if state in _PG_FULL:
        return _full(where, first_line(error))
    lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    if lost or state == _PG_READ_ONLY:
        return _unavailable(where, first_line(error), purpose)
    return None


def first_line(error: SQLAlchemyError) -> str:
    """What the database said, without what SQLAlchemy adds and what may follow on further lines."""
    said = getattr(error, "orig", None) or error
    return (str(said).splitlines() or [type(said).__name__])[0][:300]


def gone(where: str, purpose: Purpose) -> ApiError:
    """The error for a file that is not the one any more that was opened."""
    return ApiError(
        503,
        purpose.unavailable,
        f"{where} was removed or replaced while {purpose.service} has it open: stop "
        f"{purpose.service}, put the file back (or leave it away, to start without "
        f"{purpose.without}) and start it again",
        headers={"Retry-After": _RETRY_AFTER_S},
    )


def _of_sqlite(error: sqlite3.Error, where: str, purpose: Purpose) -> ApiError | None:
    code = int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY
    if code in _RUBBISH:
        return ApiError(
            500,
            purpose.damaged,
            f"{where} can't be read ({error}): restore it from a backup, or move it away to start "
            f"without {purpose.without}{purpose.beside}",
        )
    if code in _FULL:
        return _full(where, str(error))
    if code in _BUSY:
        return _unavailable(where, str(error), purpose)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ApiError(
            507,
            NOT_WRITABLE,
            f"{where} can't be written ({error}): check the disk and its rights",
        )
    return None


def _full(where: str, reason: str) -> ApiError:
    return ApiError(
        507,
        FULL_DISK,
        f"the disk of {where} took no more data ({reason}); nothing was changed: "
        "free space there and try again",
    )


def _unavailable(where: str, reason: str, purpose: Purpose) -> ApiError:
    return ApiError(
        503,
        purpose.unavailable,
        f"{purpose.name} at {where} does not answer ({reason}); start it or try again soon",
        headers={"Retry-After": _RETRY_AFTER_S},
    )
