"""Documents from files and folders, and whatever is left out, with its reason."""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shared.cli.failures import CliError

FORMATS = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}
_ONE_PER_LINE = (".jsonl", ".ndjson")
MAX_CHARACTERS = 2_000_000  # of one document; retrieve refuses more
_MAX_BYTES = 4 * MAX_CHARACTERS  # of one document in UTF-8, at most
_FIELDS = {"id", "_id", "text", "title", "url", "format", "metadata"}
_BINARY = (b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b", b"\xd0\xcf")


@dataclass(frozen=True)
class Document:
    """A document to send. source: where it came from, for messages. size: bytes of its text."""

    id: str
    text: str
    source: str
    size: int
    title: str | None = None
    url: str | None = None
    format: str = "text"
    metadata: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The document as retrieve takes it."""
        return {
            "id": self.id,
            "text": self.text,
            "title": self.title,
            "url": self.url,
            "format": self.format,
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class Failure:
    """A document that can't be stored, and why. size: bytes that it takes of the progress bar."""

    source: str
    reason: str
    size: int = 0


@dataclass(frozen=True)
class SourceFile:
    """A file to read. id: its path relative to the folder that was given. size: bytes."""

    path: Path
    id: str
    size: int


@dataclass(frozen=True)
class Found:
    """The files to read, in order; what was left out, and folders that can't be read, with why."""

    files: list[SourceFile]
    left_out: list[Failure]
    unreadable: list[Failure]


def find_files(paths: Sequence[Path], include: Sequence[str]) -> Found:
    """The files among `paths` and in the folders among them, in the order of their names.

    include: globs that a file in a folder must match, by its name or its relative path; without
    them a file is taken by its suffix. Hidden files and folders are not looked at. A file that is
    named itself is always taken. Raises CliError for a path that does not exist.
    """
    found = Found([], [], [])
    for path in paths:
        if path.is_dir():
            _walk(path, include, found)
        elif path.is_file():
            found.files.append(SourceFile(path, path.name, path.stat().st_size))
        elif path.exists():
            raise CliError(f"{path} is neither a file nor a folder")
        else:
            raise CliError(f"there is no file or folder {path}")
    return found


def _walk(folder: Path, include: Sequence[str], found: Found) -> None:
    root = folder.resolve()

    def refuse(error: OSError) -> None:
        found.unreadable.append(Failure(str(error.filename), error.strerror or "can't be read"))

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if name.startswith("."):
                continue
            if not _wanted(relative, include):
                reason = (
                    "does not match --include"
                    if include
                    else "not text, Markdown, HTML or JSON lines"
                )
                found.left_out.append(Failure(str(path), reason))
                continue
            try:
                where, status = path.resolve(strict=True), path.stat()
            except (FileNotFoundError, RuntimeError):  # the latter for links that go in circles
                found.left_out.append(Failure(str(path), "a link that leads nowhere"))
            except OSError as error:
                refuse(error)
            else:
                if not where.is_relative_to(root):
                    found.left_out.append(Failure(str(path), "a link that leaves the folder"))
                elif not stat.S_ISREG(status.st_mode):
                    found.left_out.append(Failure(str(path), "not a regular file"))
                else:
                    found.files.append(SourceFile(path, relative, status.st_size))


def _wanted(relative: str, include: Sequence[str]) -> bool:
    name = relative.rpartition("/")[2]
    if include:
        return any(
            fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(relative, glob)
            for glob in include
        )
    return Path(name).suffix.lower() in (*FORMATS, *_ONE_PER_LINE)


def read(file: SourceFile) -> Iterator[Document | Failure]:
    """The documents of a file, or the reason why there are none."""
    try:
        if file.path.suffix.lower() in _ONE_PER_LINE:
            yield from _read_lines(file)
        else:
            yield _read_whole(file)
    except OSError as error:
        yield Failure(str(file.path), error.strerror or "can't be read", file.size)


def _read_whole(file: SourceFile) -> Document | Failure:
    source = str(file.path)
    if file.size > _MAX_BYTES:
        return Failure(
            source, f"too large: {file.size} bytes; at most {MAX_CHARACTERS} characters", file.size
        )
    text = _decode(file.path.read_bytes())
    if isinstance(text, Failure):
        return Failure(source, text.reason, file.size)
    kind = FORMATS.get(file.path.suffix.lower(), "text")
    return _checked(Document(file.id, text, source, file.size, format=kind))


def _decode(data: bytes) -> str | Failure:
    if data.startswith(b"%PDF-"):
        return Failure("", "a PDF, not text: turn it into text, Markdown or HTML first")
    if data.startswith(_BINARY) or b"\0" in data[:8192]:
        return Failure("", "binary data, not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Failure(
            "", f"not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}): save it as UTF-8"
        )


def _checked(document: Document) -> Document | Failure:
    reason = None
    if not document.text.strip():
        reason = "empty: there is no text in it"
    elif len(document.text) > MAX_CHARACTERS:
        reason = f"too large: {len(document.text)} characters; at most {MAX_CHARACTERS}"
    else:
        try:
            document.id.encode()
        except UnicodeEncodeError:
            reason = "its name is not UTF-8: rename it"
    return Failure(document.source, reason, document.size) if reason else document


def _read_lines(file: SourceFile) -> Iterator[Document | Failure]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _read_line(line, f"{file.path}:{number}")


def _read_line(line: bytes, source: str) -> Document | Failure:
    """The document that one line of JSON holds, or what is wrong with the line."""
    size = len(line)
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Failure(source, f"not JSON in UTF-8: {error.msg}", size)
    if not isinstance(data, dict):
        return Failure(source, "not a JSON object", size)
    unknown = sorted(set(data) - _FIELDS)
    if unknown:
        return Failure(
            source, f"unknown field '{unknown[0]}': put it into the field metadata", size
        )
    identifier, text = data.get("id", data.get("_id")), data.get("text")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        return Failure(source, "the field id must be a text that is not empty", size)
    if not isinstance(text, str):
        return Failure(source, "the field text must be a text", size)
    for name in ("title", "url", "format"):
        if not isinstance(data.get(name), str | None):
            return Failure(source, f"the field {name} must be a text", size)
    metadata = {} if data.get("metadata") is None else data["metadata"]
    if not isinstance(metadata, dict):
        return Failure(source, "the field metadata must be an object", size)
    try:
        orjson.dumps({"documents": [{"metadata": metadata}]})
    except orjson.JSONEncodeError:  # JSON may be read that is too deep to be written
        return Failure(source, "the field metadata is nested too deep", size)
    return _checked(
        Document(
            identifier,
            text,
            source,
            size,
            title=data.get("title") or None,
            url=data.get("url") or None,
            format=data.get("format") or "text",
            metadata=metadata,
        )
    )
