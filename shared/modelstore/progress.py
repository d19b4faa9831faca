"""How long work on models is followed, by whoever shows it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

_POLL_S = 0.2


class Progress(Protocol):
    """Called as work goes on, from any thread."""

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """task: what is being done, for people. done, total: bytes; total None where unknown."""


def silent(task: str, done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""


@contextlib.contextmanager
def following_growth(
    folders: Sequence[Path], task: str, total: int, progress: Progress
) -> Iterator[None]:
    """Report the bytes of all files in `folders` as progress while the body runs.

    For work that is done by another program or library and leaves its result in a folder.
    """
    finished = Event()

    def follow() -> None:
        while not finished.wait(_POLL_S):
            progress(task, min(sum(map(_bytes_in, folders)), total), total)

    progress(task, 0, total)
    thread = Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    progress(task, total, total)


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone since it was listed
            size += path.stat().st_size if path.is_file() else 0
    return size
