"""A file that is made from a model's: made once, kept in a folder, checked when it is opened.

A file's name says all that its content depends on, and the hash of that content:
``<stem>.<content>.<suffix>``. So a stale file is never found, a damaged one never loaded.
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.durable import atomic_write
from shared.errors import StartupError
from shared.modelstore.entry import hash_file


def derived(folder: Path, stem: str, suffix: str, make: Callable[[], bytes]) -> Path:
    """The file of that stem in `folder`, or made there now.

    stem: says all that the content depends on: the model's weights and how `make` treats them.
    Raises StartupError where `folder` can't be written to, and what `make` raises.
    """
    try:
        # Two services start at once: the second waits for the first one's file.
        with _locked(folder):
            return _intact(folder, stem, suffix) or _made(folder, stem, suffix, make())
    except OSError as error:
        raise StartupError(
            f"what is made of the model can't be kept in {folder}: {error.strerror or error}; free "
            "some space, or set REFDESK_DATA_DIR to a folder that can be written to"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel however the process ends
        yield


def _intact(folder: Path, stem: str, suffix: str) -> Path | None:
    """The file of that stem whose content is what its name says; others are removed."""
    for path in folder.glob(f"{stem}.*{suffix}"):
        if path.name == _name(stem, suffix, hash_file(path).sha256):
            return path
        path.unlink()
    return None


def _made(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    path = folder / _name(stem, suffix, hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)
    return path


def _name(stem: str, suffix: str, content: str) -> str:
    return f"{stem}.{content[:16]}{suffix}"
