"""What there is to load: documents in files, archives and lines, and whatever is left out, and why.

Nothing is parsed here: the desk does that, and says of each file whether it can be read. Here a
file is named, found and handed on as it is.
"""

import io
import lzma
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

import orjson

from shared.cli.kinds import ARCHIVE, ONE_PER_LINE

_MAX_ID_CHARACTERS = 512
_BOMB_RATIO = 200  # no text is so regular
_BOMB_BYTES = 1024 * 1024
_UTF8_NAME = 0x800  # flags of a member of a ZIP: APPNOTE.TXT 4.4.4
_ENCRYPTED = 0x1
_LINK = 0xA  # the type in a member's Unix mode

# What reading may raise, of a file and of a member of an archive.
READ_FAULTS = (
    *(OSError, BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError),
)


@dataclass(frozen=True)
class Limits:
    """What the desk takes, in bytes: of a file, and of a line with a document."""

    file: int
    line: int


# Where nobody can be asked: what is too large is told when it is sent.
NO_LIMITS = Limits(2**62, 2**62)


@dataclass(frozen=True)
class Failure:
    """What can't be stored, and why. source: where it is, for messages. size: bytes.

    id: of the document that it would have been; None where nobody knows how many documents it
    holds and which.
    """

    source: str
    reason: str
    size: int = 0
    id: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """What was not meant to be stored, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A document to be. source: where it is, for messages. size: bytes. most: that it may have by
    the time when it is read.

    open: gives its bytes; of one that was sent as JSON (`state` is not None) those of that JSON.
    state: what the desk compares besides the id, empty where it can't. path: of a file that is one
    document.
    """

    id: str
    source: str
    size: int
    most: int
    open: Callable[[], BinaryIO]
    state: Mapping[str, Any] | None = None
    path: Path | None = None


@dataclass(frozen=True)
class SourceFile:
    """A file to read. size: bytes.

    id: of the document that it is; of a file that holds several what their ids begin with.
    """

    path: Path
    id: str
    size: int


def several(path: Path) -> bool:
    """Whether a file holds several documents."""
    return path.suffix.lower() in (*ONE_PER_LINE, ARCHIVE)


def entries(
    file: SourceFile, wanted: Callable[[str], str | None], limits: Limits
) -> Iterator[Entry | Failure | LeftOut]:
    """The documents of a file, as they come, and what is none with the reason.

    wanted: says of the name of an archive's member why it is left out, None if it is not.
    """
    suffix = file.path.suffix.lower()
    try:
        if suffix in ONE_PER_LINE:
            yield from _lines(file, limits.line)
        elif suffix == ARCHIVE:
            yield from _members(file, wanted, limits.file)
        elif reason := _unfit(file.id, file.size, limits.file):
            yield Failure(str(file.path), reason, file.size, file.id)
        else:
            path = file.path
            yield Entry(
                file.id, str(path), file.size, limits.file, lambda: path.open("rb"), path=path
            )
    except READ_FAULTS as error:
        yield Failure(str(file.path), reason_of(error), file.size)


def reason_of(error: BaseException) -> str:
    """What one of `READ_FAULTS` says, for people."""
    if isinstance(error, OSError):
        return error.strerror or "can't be read"
    return f"can't be read: {error}" if str(error) else "can't be read"


def too_large(size: int, most: int) -> str:
    """Why a file of so many bytes is not stored."""
    return f"too large: {size / 1e6:,.0f} MB; at most {most >> 20} MiB: split it"


def _unfit(name: str, size: int = 0, most: int = 0) -> str | None:
    """Why a document can't have this id, or so many bytes; None if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if not name.isprintable() and any(ord(one) < 32 or 127 <= ord(one) < 160 for one in name):
        return "its name holds a control character, such as a line break: rename it"
    if not name.strip():
        return "its name is blank: rename it"
    if len(name) > _MAX_ID_CHARACTERS:
        return f"its name is too long: at most {_MAX_ID_CHARACTERS} characters with its folders"
    return too_large(size, most) if size > most else None


# --- a document in each line -----------------------------------------------------------------


def _lines(file: SourceFile, most: int) -> Iterator[Entry | Failure]:
    with file.path.open("rb") as lines:
        number = 0
        while line := lines.readline(most + 1):
            number += 1
            source = f"{file.path}:{number}"
            if len(line) > most:
                size = len(line)
                while not line.endswith(b"\n") and (line := lines.readline(most)):
                    size += len(line)
                yield Failure(source, too_large(size, most), size)
            elif line.strip():
                yield _line(line, source, file.id)


def _line(line: bytes, source: str, prefix: str) -> Entry | Failure:
    """The document that one line of JSON holds, or what is wrong with the line."""
    size = len(line)
    try:
        data = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        return Failure(source, f"not JSON in UTF-8: {error.msg}", size)
    if not isinstance(data, dict):
        return Failure(source, "not a JSON object", size)
    identifier = data.pop("_id", None)  # as in BEIR's collections
    identifier = data.get("id", identifier)
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        return Failure(source, "the field id must be a text that is not empty", size)
    if reason := _unfit(prefix + identifier):
        return Failure(source, reason.replace("name", "id").replace("rename", "change"), size, "")
    try:
        return document({**data, "id": prefix + identifier}, source, size)
    except orjson.JSONEncodeError:  # JSON may be read that is too deep to be written
        return Failure(source, "the line is nested too deep", size, prefix + identifier)


def document(data: Mapping[str, Any], source: str, size: int) -> Entry:
    """A document as the desk takes it in JSON; its id must be one. Fields without a value are left
    out. Raises orjson.JSONEncodeError."""
    empty = {"title": (None, ""), "url": (None, ""), "format": (None, ""), "metadata": (None,)}
    sent = {name: value for name, value in data.items() if value not in empty.get(name, ())}
    body = orjson.dumps(sent)
    return Entry(sent["id"], source, size, len(body), lambda: io.BytesIO(body), _state(sent))


def _state(sent: Mapping[str, Any]) -> dict[str, Any]:
    """What the desk compares; empty where only it can tell what the document is."""
    text = sent.get("text")
    fields = {"id", "text", "title", "url", "format", "metadata", "readers"}
    if not isinstance(text, str) or set(sent) - fields:
        return {}
    told = {name: value for name, value in sent.items() if name not in ("id", "text")}
    return {"format": "text", **told, "sha256": sha256(text.encode()).hexdigest()}


# --- archives --------------------------------------------------------------------------------


def _members(
    file: SourceFile, wanted: Callable[[str], str | None], most: int
) -> Iterator[Entry | Failure | LeftOut]:
    """The files in a ZIP, to be read while the archive stays open; each may be read beside the
    others."""
    archive = ZipFile(file.path)
    for info in archive.infolist():
        name = _member_name(info)
        if info.is_dir() or any(hidden(part) for part in name.split("/") if part != ".."):
            continue
        source = f"{file.path}/{name}"
        if reason := wanted(name):
            yield LeftOut(source, reason)
        elif info.external_attr >> 28 == _LINK:
            yield LeftOut(source, "a link in an archive")
        elif reason := _member_fault(info, name) or _unfit(file.id + name, info.file_size, most):
            yield Failure(source, reason, info.file_size, file.id + name)
        else:
            yield Entry(file.id + name, source, info.file_size, most, _opener(archive, info))


def _opener(archive: ZipFile, info: ZipInfo) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        return archive.open(info)  # type: ignore[return-value]  # IO[bytes], read alone

    return opened


def _member_name(info: ZipInfo) -> str:
    """As the desk reads it: many programs write UTF-8 and don't say so."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _member_fault(info: ZipInfo, name: str) -> str | None:
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return "its name leads out of the archive"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted: unpack it first"
    if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
        return f"it would grow more than {_BOMB_RATIO}-fold: an archive bomb, or nothing to read"
    return None


def hidden(name: str) -> bool:
    """Whether a file or folder is passed over: hidden, or what editors leave beside a file."""
    return name.startswith((".", "#")) or name.endswith(("~", ".swp", ".swx", ".swo", ".part"))
