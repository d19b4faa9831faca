"""A form of files (multipart/form-data, RFC 7578), put on the disk as it comes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import ApiError

_MAX_PARTS = 100_000
_MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class Part:
    """A part of a form: where its content is in the file, in bytes. file_name: None where it has
    none, or none in UTF-8."""

    name: str
    file_name: str | None
    start: int
    size: int


class FormReader:
    """Reads one form. Not safe to share between threads, but may go from one to the next."""

    def __init__(self, content_type: str) -> None:
        """content_type: the header of the request. Raises ApiError 400 where it has no boundary."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise _bad_form("the Content-Type names no boundary")
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _bad_form(str(error)) from None
        self._parts: list[Part] = []
        self._whole = False
        self._content: list[bytes] = []
        self._begin()

    def feed(self, chunk: bytes, file: BinaryIO) -> None:
        """Read on, and put the content of parts at the end of the file, in order. Raises ApiError
        400 `bad_form`, and 422 `too_many_files`."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _bad_form(str(error)) from None
        file.write(b"".join(self._content))
        self._content = []

    def parts(self) -> Iterator[Part]:
        """The parts, once all has been read. Raises ApiError 400 where the end is missing."""
        if not self._whole:
            raise _bad_form("it ends before its last boundary")
        yield from self._parts

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._head = [b"", b""]
        self._size = self._header_bytes = 0

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._take(0, data[start:end])

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._take(1, data[start:end])

    def _take(self, which: int, data: bytes) -> None:
        self._head[which] += data
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise _bad_form(f"a part's headers are over {_MAX_HEADER_BYTES} bytes")

    def _header(self) -> None:
        self._headers[self._head[0].lower()] = self._head[1]
        self._head = [b"", b""]

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])
        self._size += end - start

    def _end(self) -> None:
        told = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        start = self._parts[-1].start + self._parts[-1].size if self._parts else 0
        name = _text(told.get(b"name", b"")) or ""
        self._parts.append(Part(name, _text(told.get(b"filename")), start, self._size))
        if len(self._parts) > _MAX_PARTS:
            message = f"the form has over {_MAX_PARTS} parts; send fewer at a time, or a ZIP"
            raise ApiError(422, "too_many_files", message)

    def _finish(self) -> None:
        self._whole = True


def _text(value: bytes | None) -> str | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return None


def _bad_form(what: str) -> ApiError:
    return ApiError(400, "bad_form", f"the body is not a form (multipart/form-data): {what}")
