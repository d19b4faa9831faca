"""The files in a ZIP, one at a time, each with a verdict where it can't be taken.

Nothing is unpacked to a disk, so that a name can lead nowhere; names that try to are refused all
the same, because they become ids of documents.
"""

import io
import lzma
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from shared.errors import ApiError

_UTF8 = 0x800  # bit of a member's flags: its name is UTF-8
_ENCRYPTED = 0x1
_ARCHIVES = {
    *("zip", "tar", "gz", "tgz", "bz2", "tbz", "xz", "txz", "7z", "rar", "zst", "jar", "war"),
    *("lz4", "cab", "iso", "cpio"),
}
_RATIO_FROM = 1024 * 1024  # bytes: a smaller member is no bomb
_STEP = 1024 * 1024
# RuntimeError: what zipfile says of passwords; NotImplementedError is one, too.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, ValueError, RuntimeError),
)
_ENTRY = b"PK\x01\x02"  # what each entry of a ZIP's directory begins with
_ENTRY_BYTES = 512  # that it has on the average, at most: 46, a name, and some more


@dataclass(frozen=True)
class ArchiveLimits:
    """members: how many there may be. member_bytes, total_bytes: unpacked, as the archive says,
    which is held to it. ratio: of a member's unpacked size to its packed one, for members over a
    megabyte."""

    members: int = 100_000
    member_bytes: int = 64 * 1024 * 1024
    total_bytes: int = 8 * 1024 * 1024 * 1024
    ratio: float = 200.0


_DEFAULT = ArchiveLimits()


@dataclass(frozen=True)
class Member:
    """A file in an archive; the name is a path with slashes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Refused:
    """A member that is left out, and why."""

    name: str
    code: str
    reason: str


def members(
    archive: BinaryIO, limits: ArchiveLimits = _DEFAULT, *, param: str = "archive"
) -> Iterator[Member | Refused]:
    """The files of a ZIP in their order, folders left out; one is in memory at a time.

    Raises ApiError 422 naming `param`, before the first of them: `broken_file` for what is no ZIP
    or breaks off, `archive_too_large` for too many members or bytes, and where members overlap.
    """
    try:
        guarded = _Guarded(archive, limits, param)
        opened = zipfile.ZipFile(guarded)
        guarded.opened = True
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise ApiError(
            422, "broken_file", f"{param} can't be read as a ZIP: {error}", param=param
        ) from None
    with opened:
        seen: set[str] = set()
        found: list[zipfile.ZipInfo | Refused] = []
        for info in opened.infolist():
            if not info.is_dir():
                name = _name(info)
                found.append(_refusal(info, name, seen, limits) or info)
                seen.add(name)
        _require_room(
            [one for one in found if not isinstance(one, Refused)], archive, limits, param
        )
        for one in found:
            yield one if isinstance(one, Refused) else _read(opened, one)


class _Guarded:
    """A file as zipfile reads it: it takes the whole directory at once, and makes objects of the
    many times its size.

    opened: whether the directory has been read; what is read from then on are members' data.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits, param: str) -> None:
        self._file = file
        self._members = limits.members
        self._param = param
        self.opened = False
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1, /) -> bytes:
        """Raises ApiError 422 `archive_too_large` for a directory of too many members, or bytes."""
        most = max(_STEP, self._members * _ENTRY_BYTES)
        if size > most and not self.opened:
            message = f"{self._param} has a directory of {size} bytes, over {most}"
            raise _too_large(message, self._param)
        data = self._file.read(size)
        if not self.opened and data.startswith(_ENTRY) and data.count(_ENTRY) > self._members:
            raise _too_large(f"{self._param} has over {self._members} members", self._param)
        return data


def _require_room(
    infos: Sequence[zipfile.ZipInfo], archive: BinaryIO, limits: ArchiveLimits, param: str
) -> None:
    """Raise ApiError 422 `archive_too_large` for a bomb of many members."""
    if sum(info.file_size for info in infos) > limits.total_bytes:
        raise _too_large(f"{param} unpacks to over {limits.total_bytes} bytes", param)
    if sum(info.compress_size for info in infos) > archive.seek(0, io.SEEK_END):
        raise _too_large(f"{param} has members that overlap: it is no honest archive", param)


def _too_large(message: str, param: str) -> ApiError:
    return ApiError(422, "archive_too_large", message, param=param)


def _name(info: zipfile.ZipInfo) -> str:
    """The member's name. Many programs write UTF-8 without saying so; what is none is in code page
    437, as the format has it."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _refusal(
    info: zipfile.ZipInfo, name: str, seen: set[str], limits: ArchiveLimits
) -> Refused | None:
    """Why a member can't be taken, from what the archive says of it."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    code, reason = "", ""
    if not name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        code, reason = "bad_name", "its name is empty or holds characters that no name has"
    elif name.startswith("/") or name[1:2] == ":":
        code, reason = "bad_name", "its name is an absolute path"
    elif ".." in name.split("/"):
        code, reason = "bad_name", "its name leads out of the archive"
    elif name in seen:
        code, reason = "duplicate_name", "the archive has another member of this name"
    elif kind not in (0, stat.S_IFREG):
        code, reason = "not_a_file", "it is a link or a device, not a file"
    elif info.flag_bits & _ENCRYPTED:
        code, reason = "encrypted_file", "it is protected by a password"
    elif PurePosixPath(name).suffix[1:].lower() in _ARCHIVES:
        code, reason = "nested_archive", "it is an archive: unpack it and send what is in it"
    elif info.file_size > limits.member_bytes:
        code = "file_too_large"
        reason = f"it unpacks to {info.file_size} bytes, over {limits.member_bytes}"
    elif info.file_size > max(_RATIO_FROM, limits.ratio * info.compress_size):
        code, reason = "file_too_large", f"it is packed tighter than {limits.ratio:g} to 1"
    return Refused(_shown(name), code, reason) if code else None


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member | Refused:
    """The member, never more of it than the archive says that there is."""
    name, most = _name(info), info.file_size
    parts: list[bytes] = []
    size = 0
    try:
        with opened.open(info) as stream:
            while part := stream.read(min(_STEP, most + 1 - size)):
                parts.append(part)
                size += len(part)
                if size > most:
                    return Refused(name, "file_too_large", "it is longer than the archive says")
    except _UNREADABLE as error:
        return Refused(name, "broken_file", f"it can't be unpacked: {error}")
    return Member(name, b"".join(parts))
