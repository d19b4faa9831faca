"""Checksums of what a corpus's database holds: a byte that flipped on the disk is found by them.

CRC-32 finds every error within 32 neighbouring bits. Each sum is kept beside what it is of, and
looked at wherever that is read: no answer is made of what does not fit its sum.
"""

import json
import zlib

Field = str | int | None

_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class WrongSumError(ValueError):
    """Something that was read is not what was written."""


def row_sum(*fields: Field) -> int:
    """The CRC-32 of some columns of a row, in their order."""
    return zlib.crc32(_as_json(fields).encode())


def vector_sum(key: int, packed: object) -> int:
    """The CRC-32 of a chunk's vector as it is stored, which depends on the chunk's key, too.

    Raises WrongSumError for what is no bytes: SQLite would store and give anything.
    """
    if not isinstance(packed, bytes):
        raise WrongSumError(f"the vector of chunk {key} is no bytes")
    return zlib.crc32(packed, key & 0xFFFFFFFF)


def require_sum(expected: int, found: int, of: str) -> None:
    """Raise WrongSumError where two checksums differ; `of` says whose they are."""
    if expected != found:
        raise WrongSumError(f"{of} does not fit its checksum")
