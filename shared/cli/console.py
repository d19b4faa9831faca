"""The two streams of the command line: results on stdout, everything else on stderr."""

import sys
import unicodedata
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn

# Beyond a terminal there is no width to keep to, and a table cell cut short would be a loss.
_PIPE_WIDTH = 200


def output() -> Console:
    """Where results go: stdout."""
    return Console(highlight=False, width=_width(sys.stdout))


def notes() -> Console:
    """Where progress, notes and errors go: stderr."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO | None) -> int | None:
    # There is no stream where the shell has closed it: >&-
    return None if stream is not None and stream.isatty() else _PIPE_WIDTH


def progress(console: Console, *columns: ProgressColumn) -> Progress:
    """A live display that goes away when done. Beyond a terminal it shows nothing."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def plain(text: str) -> str:
    """`text` without control characters, line breaks and tabs apart.

    What a document or a server says must not be able to steer the reader's terminal.
    """
    return "".join(
        character
        for character in text
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
    )


def one_line(text: str) -> str:
    """`text` on one line: each run of white space is one space, control characters are gone."""
    return " ".join(plain(text).split())


def say_line(console: Console, message: str) -> None:
    """Print a message, whatever is in it, as one line."""
    console.print(one_line(message), markup=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Print ``error: message`` as one line on stderr."""
    if sys.stderr is not None:  # print would take None for stdout
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
