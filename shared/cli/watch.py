"""Does something again whenever files change, until Ctrl-C."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from glob import has_magic
from pathlib import Path

from rich.console import Console
from watchfiles import Change, watch

from shared.cli.console import say_line
from shared.cli.failures import BrokenOffError, CliError, RefusedError, UnreachableError
from shared.cli.sources import hidden

logging.getLogger("watchfiles").setLevel(logging.ERROR)  # it remarks on every Ctrl-C

_QUIET_MS = 800  # an editor writes a file in several steps: what comes so close is one change
_TICK_MS = 500
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # before it is tried again; the last one from then on


def keep_watching(paths: Sequence[str], again: Callable[[], None], console: Console) -> None:
    """Call `again` after each change under `paths`, and until it succeeds while the desk is away.

    Returns on Ctrl-C, but lets it through from `again`. Raises what `again` does, apart from
    CliErrors that may pass and those about the files, which are told.
    """
    say_line(console, f"watching {', '.join(paths)}; Ctrl-C ends it")
    waiting = _Waiting(console)
    for changed in _changes(_folders(paths)):
        if changed or waiting.over:
            waiting.attempt(again)


class _Waiting:
    """Whether something is to be tried again, and when."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._failures = 0
        self._due: float | None = 0.0  # files may have changed before they were watched

    @property
    def over(self) -> bool:
        """Whether it is time to try again what did not succeed."""
        return self._due is not None and time.monotonic() >= self._due

    def attempt(self, again: Callable[[], None]) -> None:
        """Try it, and tell what is wrong; the same of a desk that is away only once."""
        try:
            again()
        except CliError as error:
            if isinstance(error, RefusedError) and error.status < 500 and error.status != 429:
                raise
            away = isinstance(error, UnreachableError | BrokenOffError | RefusedError)
            if not away or not self._failures:
                told = f"{error}; it is tried again" if away else str(error)
                say_line(self._console, told)
            pause = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._due = time.monotonic() + pause if away else None
            self._failures += away
        else:
            if self._failures:
                say_line(self._console, "the service answers again")
            self._due, self._failures = None, 0


def _folders(paths: Sequence[str]) -> list[Path]:
    """What to watch: a file's own folder, for editors put another file in its place."""
    found = []
    for one in paths:
        path = Path(one)
        if not os.path.lexists(one):
            plain = []
            for part in path.parts:
                if has_magic(part):
                    break
                plain.append(part)
            path = Path(*plain)
        found.append(path if path.is_dir() else path.parent)
    return list(dict.fromkeys(found))


def _changes(folders: Sequence[Path]) -> Iterator[bool]:
    """Whether something has changed, every while or so, until Ctrl-C; by looking at all the files
    where the system does not tell."""
    roots = [folder.absolute() for folder in folders]

    def counts(_: Change, path: str) -> bool:
        for root in roots:
            if Path(path).is_relative_to(root):
                return not any(hidden(part) for part in Path(path).relative_to(root).parts)
        return True

    def look(polling: bool | None) -> Iterator[bool]:
        for changes in watch(
            *roots,
            watch_filter=counts,
            debounce=_QUIET_MS,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=polling,
            ignore_permission_denied=True,
        ):
            yield bool(changes)

    try:
        yield from look(None)  # which is the library's own choice
    except OSError:  # the system's limit of watches is reached, or it has none
        yield from look(True)
