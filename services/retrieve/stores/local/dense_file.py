"""The lists of the dense arm on disk, so that a large corpus opens without learning them anew.

A derived file, written whole: a line with its form and checksum, a line of JSON, then keys,
fingerprints of their vectors, and the lists as FAISS writes them. Whether it fits the database is
asked of each row when it is opened, so a file may lag behind. One that is ahead of the database (a
backup was restored) is not taken: it has vectors under keys that others will get.
"""

import json
import zlib
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense_lists import Lists
from services.retrieve.stores.local.dense_rows import Keys, VectorRows, parts
from shared.durable import atomic_write

_NAME = "lists"
_FORM = "refdesk dense 1"
_PART = 16_384

Prints = NDArray[np.uint32]


class ListsDamagedError(Exception):
    """The file is absent, damaged or of another form: learn the lists anew."""


@dataclass(frozen=True)
class Saved:
    """Lists with the keys (ascending) and fingerprints of what they were made of."""

    lists: Lists
    keys: Keys
    prints: Prints


def fingerprints(vectors: Vector) -> Prints:
    """The sum of the bits of each of the vectors float32 [n, d].

    Two vectors of texts share one by chance, once in four billion; numbers that changed places do.
    """
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    prints: Prints = bits.sum(axis=1, dtype=np.uint32)
    return prints


def packed(lists: Lists, rows: VectorRows) -> bytes:
    """The file's content for `lists` of `rows`; neither may change meanwhile."""
    found: list[Keys] = [np.empty(0, np.int64)]
    prints: list[Prints] = [np.empty(0, np.uint32)]
    for part in parts(lists.keys(), _PART):
        keys, vectors = rows.take(part)
        found.append(keys)
        prints.append(fingerprints(vectors))
    keys, payload = np.concatenate(found), lists.written()
    head = {"dimension": rows.dimension, "end": lists.end, "rows": len(keys), "bytes": len(payload)}
    body = (
        json.dumps(head).encode() + b"\n",
        keys.astype("<i8").tobytes(),
        np.concatenate(prints).astype("<u4").tobytes(),
        payload.tobytes(),
    )
    checksum = 0
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    return b"".join((f"{_FORM} {checksum:08x}\n".encode(), *body))


def save(folder: Path, content: bytes) -> None:
    """Put `packed` content in the place of what is there.

    Raises OSError as the disk does, and where the folder that `folder` lies in is gone: a corpus
    that was deleted must not come back.
    """
    folder.mkdir(exist_ok=True)
    atomic_write(folder / _NAME, content)


def load(folder: Path, dimension: int) -> Saved:
    """What was saved. Raises ListsDamagedError unless it is sound and of that dimension."""
    for left_over in folder.glob(f".{_NAME}.*"):  # of a process that was killed while it wrote
        with suppress(OSError):
            left_over.unlink()
    try:
        data = np.fromfile(folder / _NAME, np.uint8)
        first = _line(data, 0)
        title = data[:first].tobytes().decode("ascii").rstrip("\n")
        if title != f"{_FORM} {zlib.crc32(data[first:].data):08x}":
            raise ListsDamagedError("it is damaged")
        second = _line(data, first)
        head = json.loads(data[first:second].tobytes())
        if head["dimension"] != dimension:
            raise ListsDamagedError(f"its vectors have {head['dimension']} numbers")
        cuts = second + np.cumsum((0, 8 * head["rows"], 4 * head["rows"], head["bytes"]))
        keys, prints, payload = (data[start:end] for start, end in pairwise(cuts))
        return Saved(
            Lists.read(payload, dimension, head["end"]),
            np.frombuffer(keys.tobytes(), "<i8").astype(np.int64),
            np.frombuffer(prints.tobytes(), "<u4").astype(np.uint32),
        )
    except FileNotFoundError:
        raise ListsDamagedError("it is not there") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListsDamagedError(f"it can't be read ({error})") from error


def fits(saved: Saved, rows: VectorRows) -> bool:
    """Whether every row below `saved.lists.end` is in it, with the vector that it has now, and
    none will come: keys below it would be found by what is saved of other vectors."""
    if saved.lists.end > rows.end:
        return False
    same: list[Keys] = [np.empty(0, np.int64)]
    for start in range(0, len(saved.keys), _PART):
        asked = saved.keys[start : start + _PART]
        keys, vectors = rows.take(asked)
        prints = saved.prints[start : start + _PART][np.searchsorted(asked, keys)]
        same.append(keys[fingerprints(vectors) == prints])
    wanted = rows.keys()
    return np.array_equal(np.concatenate(same), wanted[wanted < saved.lists.end])


def _line(data: "NDArray[np.uint8]", start: int) -> int:
    """Where the line that begins at `start` has ended."""
    ends = np.flatnonzero(data[start : start + 256] == ord("\n"))
    if not len(ends):
        raise ListsDamagedError("it is of another form")
    return start + int(ends[0]) + 1
