"""The readable text of PDF, DOCX, PPTX and XLSX, by kreuzberg."""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from services.retrieve.corpus.parsing.formats import OLE
from services.retrieve.corpus.parsing.layout import Layout
from services.retrieve.corpus.parsing.tables import add_row
from services.retrieve.stores.base import DocumentFormat
from shared.errors import ApiError

_TYPES: dict[DocumentFormat, str] = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_MOST_PARTS = 10_000
_MOST_UNPACKED = 512 * 1024 * 1024  # bytes of all parts of an office file together
_MOST_RATIO = 500  # of a part of over a megabyte; spreadsheets of zeros reach 200
_RATIO_FROM = 1024 * 1024
# Stands where a slide begins; private characters that kreuzberg passes through.
_SLIDE = re.compile("^\ue5f1(\\d+)\ue5f2$")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_VALUE = re.compile(rb"<(?:\w+:)?(?:v|t)(?:\s[^>]*)?>[^<]")
_LONGEST_TAG = 64
_STEP = 1024 * 1024
_BROKEN_PACKAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, RuntimeError, EOFError)
_ENCRYPTED = re.compile(r"password|encrypt", re.IGNORECASE)


def read_office(data: bytes, format_: DocumentFormat, layout: Layout, *, param: str) -> str | None:
    """Lay out a PDF or an office file; the title of its properties, or else its first heading (a
    spreadsheet has none: those are the names of its sheets).

    Headings, pages, slides, tables and their rows become parts of the layout; a sheet's name is a
    heading. Pictures, scripts, macros and links are not followed, scanned pages not recognised.
    Raises ApiError 422: `encrypted_file`, `broken_file`, `file_too_large`.
    """
    if format_ != "pdf":
        _check_package(data, format_, param)
    # Imported here: the library is 100 MB in memory, and only the workers read such files.
    from kreuzberg import (
        ConcurrencyConfig,
        ExtractionConfig,
        KreuzbergError,
        PageConfig,
        extract_bytes_sync,
    )

    config = ExtractionConfig(  # type: ignore[call-arg]  # its stubs have forgotten disable_ocr
        use_cache=False,
        disable_ocr=True,
        output_format="markdown",
        include_document_structure=True,
        concurrency=ConcurrencyConfig(max_threads=1),
        pages=PageConfig(insert_page_markers=format_ == "pptx", marker_format=_MARKER)
        if format_ == "pptx"
        else PageConfig(extract_pages=format_ == "pdf"),
    )
    try:
        result = extract_bytes_sync(data, _TYPES[format_], config)
    except (KreuzbergError, ValueError, OSError, RuntimeError) as error:
        raise _unreadable(format_, str(error), param) from None
    structure: Mapping[str, Any] = result.document or {}
    if format_ == "xlsx":
        _check_sheets(data, structure.get("nodes", ()), param)
    nodes = _Nodes(layout, structure.get("nodes", ()), paged=format_ in ("pdf", "pptx"))
    nodes.read()
    title = result.metadata.get("title")
    if isinstance(title, str) and title.strip():
        return title
    return nodes.heading if format_ != "xlsx" else None


_MARKER = "\n\n\ue5f1{page_num}\ue5f2\n\n"


def _check_package(data: bytes, format_: DocumentFormat, param: str) -> None:
    """Raise ApiError for an office file that is none, has a password, or unpacks to too much."""
    if data.startswith(OLE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise _encrypted(param)
        raise ApiError(
            415,
            "unsupported_format",
            f"{param} is of the old binary kind: save it as {format_.upper()}",
            param=param,
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            parts = package.infolist()
    except _BROKEN_PACKAGE as error:
        raise _unreadable(format_, str(error), param) from None
    total = sum(part.file_size for part in parts)
    ratio = max(
        (
            part.file_size / max(1, part.compress_size)
            for part in parts
            if part.file_size > _RATIO_FROM
        ),
        default=0,
    )
    if total > _MOST_UNPACKED or ratio > _MOST_RATIO or len(parts) > _MOST_PARTS:
        raise ApiError(
            422,
            "file_too_large",
            f"{param} unpacks to {total} bytes in {len(parts)} parts, the tightest packed "
            f"{ratio:.0f} to 1: that is no honest document",
            param=param,
        )
    if any(part.flag_bits & 1 for part in parts):
        raise _encrypted(param)


def _check_sheets(data: bytes, nodes: Sequence[Mapping[str, Any]], param: str) -> None:
    """Raise ApiError where a sheet with values was not read: kreuzberg leaves out, in silence, one
    whose first and last row lie too far apart."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            sheets = [part for part in package.infolist() if _SHEET.fullmatch(part.filename)]
            filled = sum(_has_values(package, part) for part in sheets)
    except _BROKEN_PACKAGE as error:  # kreuzberg passes over a sheet that can't be unpacked
        raise _unreadable("xlsx", str(error), param) from None
    read = sum(node["content"]["node_type"] == "table" for node in nodes)
    if read < filled:
        raise ApiError(
            422,
            "file_too_large",
            f"{param} has {filled} sheets with values, and only {read} can be read: one reaches "
            "too far; delete its empty rows and columns",
            param=param,
        )


def _has_values(package: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    tail = b""
    with package.open(part) as stream:
        while piece := stream.read(_STEP):
            if _VALUE.search(tail + piece):
                return True
            tail = piece[-_LONGEST_TAG:]
    return False


def _encrypted(param: str) -> ApiError:
    return ApiError(
        422,
        "encrypted_file",
        f"{param} is protected by a password: send it without one",
        param=param,
    )


def _unreadable(format_: DocumentFormat, words: str, param: str) -> ApiError:
    if _ENCRYPTED.search(words):
        return _encrypted(param)
    return ApiError(
        422,
        "broken_file",
        f"{param} can't be read as {format_.upper()}: {_once(words)}",
        param=param,
    )


def _once(words: str) -> str:
    """What a library says, on a line: each layer of it puts words of its own before those of the
    layer below, the same ones now and then."""
    parts = dict.fromkeys(" ".join(words.split()).split(": "))
    return ": ".join(parts)[:200]


class _Nodes:
    """Lays out kreuzberg's nodes, which come in the order of the document.

    heading: the first one.
    """

    def __init__(self, layout: Layout, nodes: Sequence[Mapping[str, Any]], *, paged: bool) -> None:
        self.heading: str | None = None
        self._layout = layout
        self._nodes = nodes
        self._page = 0
        self._paged = paged  # pages of a spreadsheet or a DOCX are not those that a reader sees

    def read(self) -> None:
        """Lay out all of them."""
        for node in self._nodes:
            if self._paged and (page := node.get("page")):
                self._turn(int(page))
            content = node["content"]
            match content["node_type"]:
                case "heading":
                    words = " ".join(content["text"].split())
                    self.heading = self.heading or words
                    self._layout.gap(3)
                    self._layout.open("heading", number=min(6, max(1, int(content["level"]))))
                    self._layout.text(words)
                    self._layout.close("heading")
                    self._layout.gap(2)
                case "list_item":
                    self._layout.gap(1)
                    self._layout.mark("- ")
                    self._layout.text(content["text"])
                case "list":
                    self._layout.gap(2)
                case "code":
                    self._layout.gap(2)
                    self._layout.open("code", content.get("language") or "")
                    self._layout.text(content["text"], verbatim=True)
                    self._layout.close("code")
                    self._layout.gap(2)
                case "table":
                    self._table(content["grid"])
                case _:
                    self._paragraph(content.get("text") or "")

    def _paragraph(self, text: str) -> None:
        if slide := _SLIDE.match(text.strip()):
            self._turn(int(slide[1]))
        elif text:
            self._layout.gap(2)
            self._layout.text(text)
            self._layout.gap(2)

    def _turn(self, page: int) -> None:
        if page > self._page:
            self._layout.close("page")
            self._layout.gap(2)
            self._layout.open("page", number=page)
            self._page = page

    def _table(self, grid: Mapping[str, Any]) -> None:
        rows: dict[int, list[str]] = {}
        for cell in grid["cells"]:
            row = rows.setdefault(cell["row"], [])
            row.extend([""] * (cell["col"] - len(row)))
            row.append(" ".join(cell["content"].split()))
        self._layout.gap(2)
        self._layout.open("table")
        for row in rows.values():
            if any(row):
                self._layout.row()
                add_row(self._layout, row)
        self._layout.close("table")
        self._layout.gap(2)
