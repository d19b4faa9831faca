"""Work for the processes that read files, good and bad, in a module that they import quickly."""

import ctypes
import os
from contextlib import suppress

from services.retrieve.corpus.parsing.file import parse_file
from services.retrieve.corpus.parsing.parse import Parsed
from shared.errors import ApiError


def hang(_: int) -> int:
    while True:
        pass


def eat(_: int) -> int:
    eaten = []
    while True:
        eaten.append(bytearray(10_000_000))


def crash(_: int) -> int:
    ctypes.string_at(0)
    return 0


def defect(_: int) -> int:
    raise KeyError("x")


def refuse(number: int) -> int:
    raise ApiError(422, "no_text", f"{number} has no text", param="files.7")


def double(number: int) -> int:
    print("a library's chatter")
    return 2 * number


def flood(megabytes: int) -> bytes:
    return bytes(megabytes * 1024 * 1024)


def surroundings(_: int) -> tuple[int, int, list[str], list[str]]:
    """Process, parent, environment and what its open files are."""
    links = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
    return os.getpid(), os.getppid(), sorted(os.environ), links


def read(task: tuple[str, bytes]) -> Parsed:
    return parse_file(*task, None, None, param="files.0")
