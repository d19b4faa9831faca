"""The bodies that bring documents, made into the items of a job, a part at a time.

A body is put on the disk as it comes, whatever its size, and read from there: an archive is read
from its end, and what is said about the files of a form may come after them. What is wrong with one
document becomes an item, too, and its verdict; what is wrong with the body as a whole is raised.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Literal

import orjson
from pydantic import ValidationError

from services.retrieve.corpus.form import FormReader, Part
from services.retrieve.corpus.parsing.archive import ArchiveLimits, members
from services.retrieve.corpus.parsing.archive import Refused as RefusedMember
from services.retrieve.corpus.protocol import FileLabels, shown_id
from services.retrieve.corpus.transfer import parquet
from services.retrieve.jobs.model import Item
from shared.errors import ApiError, refusal

BodyKind = Literal["json", "ndjson", "multipart", "parquet", "zip"]
CONTENT_TYPES: dict[str, BodyKind] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "multipart/form-data": "multipart",
    parquet.CONTENT_TYPE: "parquet",
    "application/zip": "zip",
    "application/x-zip-compressed": "zip",
}

_WRITTEN_AT_ONCE = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024  # a line is held in memory whole: none may be as large as a body


@dataclass(frozen=True)
class Received:
    """A body on the disk. size: its bytes. parts: of a form."""

    kind: BodyKind
    file: BinaryIO
    size: int
    parts: tuple[Part, ...] = ()


async def receive_body(
    stream: AsyncIterator[bytes], kind: BodyKind, content_type: str, file: BinaryIO
) -> Received:
    """Put a body into an empty file. Raises ApiError 400 `bad_form` for a form that is none."""
    form = FormReader(content_type) if kind == "multipart" else None
    size = 0
    waiting: list[bytes] = []
    held = 0

    def put(chunks: list[bytes]) -> None:
        for chunk in chunks:
            if form is not None:
                form.feed(chunk, file)
            else:
                file.write(chunk)

    async for chunk in stream:
        size += len(chunk)
        waiting.append(chunk)
        held += len(chunk)
        if held >= _WRITTEN_AT_ONCE:
            await asyncio.to_thread(put, waiting)
            waiting, held = [], 0
    await asyncio.to_thread(put, waiting)
    return Received(kind, file, size, tuple(form.parts()) if form is not None else ())


@dataclass(frozen=True)
class BodyLimits:
    """Bytes. json: of JSON that is read whole: a body, or what a form tells about its files. file:
    of each file."""

    json: int
    file: int


def items_of(received: Received, limits: BodyLimits, prefix: str = "") -> Iterator[Item]:
    """The items of a body, in order; of two with the same id, and of a file that is too large, an
    item with the reason.

    prefix: stands before the names of an archive's members in their documents' ids. Raises ApiError
    400 `invalid_json`, `bad_form`, 413 `body_too_large` and 422, some while items are read.
    """
    received.file.seek(0)
    match received.kind:
        case "json":
            _require_small(received.size, limits, "a body of JSON", None)
            return _distinct(_of_json(received.file.read()))
        case "ndjson":
            return _distinct(_of_lines(received.file))
        case "multipart":
            return _distinct(_of_form(received, limits))
        case "parquet":
            return _distinct(_of_rows(received.file))
        case "zip":
            return _distinct(_of_archive(received.file, prefix, limits))


def _require_small(size: int, limits: BodyLimits, what: str, param: str | None) -> None:
    if size > limits.json:
        message = (
            f"{what} may have {limits.json} bytes: send less at a time, or documents as NDJSON "
            "(application/x-ndjson), which may be larger"
        )
        raise ApiError(413, "body_too_large", message, param=param)


@dataclass(frozen=True)
class _Found:
    """An item without its number. id: of its document, as far as it is known."""

    id: str
    item: Item


def _distinct(found: Iterable[_Found]) -> Iterator[Item]:
    """The items, numbered. Raises ApiError 422 where there are none."""
    seen: dict[bytes, str] = {}  # digests: of a million ids the ids themselves would be too much
    seq = -1
    for seq, one in enumerate(found):
        item = one.item
        if one.id:
            digest = hashlib.blake2b(one.id.encode("utf-8", "surrogatepass"), digest_size=12)
            place = digest.digest()
            first = seen.get(place)
            if first is not None:
                reason = f"{item.name} has the id of {first}, too; send each document once"
                item = refused_item(one.id, "duplicate_id", reason).item
            else:
                seen[place] = item.name
        yield replace(item, seq=seq)
    if seq < 0:
        raise ApiError(422, "no_documents", "there is no document in the body: send at least one")


def refused_item(name: str, code: str, reason: str) -> _Found:
    """An item that stands for what can't be a document, and why."""
    return _Found("", Item(0, name, {"kind": "refused", "code": code, "reason": reason}, b""))


def _of_json(data: bytes) -> list[_Found]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON in UTF-8: {error}"
        raise ApiError(400, "invalid_json", message) from None
    if not isinstance(body, dict) or not isinstance(body.get("documents"), list):
        raise refusal((), 'send {"documents": [...]}, or one document a line as NDJSON')
    if further := [name for name in body if name != "documents"]:
        raise refusal((further[0],), "Extra inputs are not permitted")
    return [_as_json(f"documents.{place}", one) for place, one in enumerate(body["documents"])]


def _of_lines(file: BinaryIO) -> Iterator[_Found]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        name = f"line {number}"
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                pass
            reason = f"{name} is over {MAX_LINE_BYTES} bytes"
            yield refused_item(name, "line_too_long", reason)
            continue
        line = line.strip().removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
        if not line:
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield refused_item(name, "invalid_json", f"{name} is not JSON in UTF-8: {error}")
            continue
        yield _document(name, value, line)


def _of_rows(file: BinaryIO) -> Iterator[_Found]:
    for number, value in enumerate(parquet.rows(file), start=1):
        yield _as_json(f"row {number}", value)


def _as_json(name: str, value: Any) -> _Found:
    """The item of a document that is none as it came: too deep, or of values that JSON lacks."""
    try:
        return _document(name, value, orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        return refused_item(name, "invalid_json", f"{name} can't be a document: {error}")


def _document(name: str, value: Any, data: bytes) -> _Found:
    return _Found(shown_id(value), Item(0, name, {"kind": "document"}, data))


def _of_form(received: Received, limits: BodyLimits) -> Iterator[_Found]:
    labels: dict[str, FileLabels] = {}
    told = sum(part.size for part in received.parts if part.name == "documents")
    _require_small(told, limits, "`documents`", "documents")
    for part in received.parts:
        if part.name == "documents":
            labels |= _labels(_read(received.file, part))
        elif part.name != "files":
            raise ApiError(
                422,
                "invalid_request",
                f"{part.name[:64]}: is no part of this form; send `files`, and `documents` about "
                "them",
                param=part.name[:64],
            )
    for part in received.parts:
        if part.name == "files":
            about = labels.pop(part.file_name or "", None)
            read = partial(_read, received.file, part)
            name = part.file_name or ""
            if part.size > limits.file:
                reason = f"the file has {part.size} bytes, and at most {limits.file} are read"
                told_id = (about.id if about else None) or name
                yield refused_item(told_id, "file_too_large", f"{reason}: split it")
            else:
                yield _file(name, about, read)
    for name in labels:
        reason = f"`documents` tells about a file {name} that is not among `files`"
        yield refused_item(labels[name].id or name, "file_missing", reason)


def _labels(data: bytes) -> dict[str, FileLabels]:
    try:
        sent = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"documents: is not JSON in UTF-8: {error}"
        raise ApiError(400, "invalid_json", message, param="documents") from None
    if not isinstance(sent, list):
        raise refusal(("documents",), "must be a list of objects, one for each file")
    found: dict[str, FileLabels] = {}
    for place, one in enumerate(sent):
        try:
            labels = FileLabels.model_validate(one)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise refusal(("documents", place, *fault["loc"]), fault["msg"]) from None
        if labels.file in found:
            raise refusal(("documents", place, "file"), f"tells about {labels.file} twice")
        found[labels.file] = labels
    return found


def _file(name: str, about: FileLabels | None, read: Callable[[], bytes]) -> _Found:
    """The item of a file, or of why it can't be one."""
    try:
        labels = about or FileLabels(file=name, id=name)
        labels = labels if labels.id else FileLabels(**{**labels.model_dump(), "id": name})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        words = fault["msg"].removeprefix("Value error, ")
        reason = f"the file's name can't be a document's id: {words}"
        return refused_item(name, "bad_name", reason)
    options = {"kind": "file", "labels": labels.model_dump()}
    return _Found(labels.id or name, Item(0, name, options, read()))


def _read(file: BinaryIO, part: Part) -> bytes:
    file.seek(part.start)
    return file.read(part.size)


def _of_archive(file: BinaryIO, prefix: str, limits: BodyLimits) -> Iterator[_Found]:
    for one in members(file, ArchiveLimits(member_bytes=limits.file)):
        name = f"{prefix}{one.name}"
        if isinstance(one, RefusedMember):
            yield refused_item(name, one.code, one.reason)
        else:
            yield _file(name, None, partial(bytes, one.data))
