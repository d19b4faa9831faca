"""How many changes of a corpus's database were acknowledged, noted in a file beside it.

SQLite takes a damaged frame of its log for the end of the log, and goes on without what was
committed after it. So each change is counted in the database, and its number is noted here once it
is committed: a database that is opened with fewer has lost some, and says so.

The note is not forced to the disk. It may lag behind the database, and can't run ahead of it.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path

NOTE = "acknowledged"


def note(folder: Path, changes: int) -> None:
    """Note how many changes are committed; without room for it the note of before stays."""
    count = b"%020d" % changes
    with suppress(OSError):
        handle = os.open(folder / NOTE, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, b"%s %08x\n" % (count, zlib.crc32(count)), 0)
        finally:
            os.close(handle)


def noted(folder: Path) -> int:
    """How many were committed at least; 0 where there is no note, or none that can be read."""
    try:
        count, checksum = (folder / NOTE).read_bytes().split()
        return int(count) if int(checksum, 16) == zlib.crc32(count) else 0
    except (OSError, ValueError):
        return 0
