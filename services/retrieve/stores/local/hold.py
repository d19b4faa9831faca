"""The folder of corpora as a whole: who has it, and which version of refdesk can read it."""

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO

from shared.durable import atomic_write
from shared.errors import StartupError

FORMAT = 2  # 1 had no generations
_OLDER = 1


def hold(folder: Path) -> BinaryIO:
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


def check_format(folder: Path) -> None:
    """Stamp a new folder, or one of the format before, whose corpora are brought to today's when
    they are opened; raise StartupError for one that this version can't read."""
    path = folder / "format.json"
    if path.exists():
        try:
            found = int(json.loads(path.read_bytes())["format"])
        except (ValueError, KeyError, TypeError):
            raise StartupError(
                f'{path} is damaged: it should hold {{"format": {FORMAT}}}; restore it'
            ) from None
        if found == FORMAT:
            return
        if found != _OLDER:
            raise StartupError(
                f"the data folder {folder} has format {found}, and this refdesk reads format "
                f"{FORMAT}: upgrade refdesk, or set REFDESK_DATA_DIR to another folder"
            )
    atomic_write(path, json.dumps({"format": FORMAT}).encode() + b"\n")
