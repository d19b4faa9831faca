"""The readable text of a Markdown document.

pulldown-cmark (by pyromark) tells headings, lists, tables and code apart, in time that is linear in
the document's length; it is read as a stream of events, without building a tree.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import pyromark

from services.retrieve.corpus.parsing.html import read_html
from services.retrieve.corpus.parsing.layout import Layout

# "---" and a line that names a field: a document may also begin with a mere rule.
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=[\w-]+[ \t]*:)(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_TITLE = re.compile(r"^title:(.*)$", re.MULTILINE)
_QUOTED = re.compile(r"""(["'])(.*)\1""")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LANGUAGE = re.compile(r"[{.]*([\w+#-]+)")

_TABLES = pyromark.Options.ENABLE_TABLES
# Empty cells that the short rows of all tables of a document are filled up with, at most: a few
# bytes can stand for a thousand of them.
_MOST_FILLED = 65_536


def read_markdown(source: str, layout: Layout) -> str | None:
    """Lay out the text of a document as a reader sees it; its title if it has one.

    The title is the front matter's, or else the first heading of the first level. Emphasis, the
    addresses of links and front matter are left out; code with its back quotes, list marks and
    table cells stay. Paragraphs are set apart by a blank line, headings by two before them.
    Headings, code with its language, tables and their rows become parts of the layout.
    """
    title: str | None = None
    if front := _FRONT_MATTER.match(source):
        source = source[front.end() :]
        if found := _FRONT_TITLE.search(front[1]):
            told = found[1].strip()
            quoted = _QUOTED.fullmatch(told)
            title = (quoted[2] if quoted else told) or None
    reader = _Reader(layout)
    rest = reader.read(source, _TABLES)
    if rest is not None:  # no more tables, then: what is left is read as it was written
        layout.close("table")
        reader.read(source.encode()[rest:].decode(), pyromark.Options(0))
    return title or reader.heading


class _Reader:
    """Takes the parser's events in order and lays out the readable text."""

    def __init__(self, layout: Layout) -> None:
        self.heading: str | None = None
        self._layout = layout
        self._lists: list[int | None] = []  # the next number of each open list, None for bullets
        self._filled = 0
        self._cell_is_empty = False
        self._from: int | None = None  # where the first heading of the first level began
        self._code = False  # in a block of code, whose text comes in pieces
        self._block: list[str] = []  # the pieces of a block of code or HTML

    def read(self, source: str, options: pyromark.Options) -> int | None:
        """Read all; or stop before the row that fills up too many cells, and give its byte."""
        events = pyromark.events_with_range(source, options=options)
        for event, span in events:
            if isinstance(event, str):
                if event == "SoftBreak":
                    self._layout.text(" ")
                else:  # a rule or a hard break
                    self._layout.gap(2 if event == "Rule" else 1)
                continue
            ((what, value),) = cast(Mapping[str, Any], event).items()
            match what:
                case "Text":
                    self._text(value)
                case "Code":
                    self._text(f"`{value}`")
                case "Start":
                    name, details = _tag(value)
                    if name == "TableRow" and self._filled > _MOST_FILLED:
                        return int(span["start"])
                    self._start(name, details)
                case "End":
                    self._end(_tag(value)[0])
                case "Html":
                    self._block.append(value)
                case "InlineHtml" if _BREAK.fullmatch(value):
                    self._layout.gap(1)
        return None

    def _text(self, data: str) -> None:
        if self._code:
            self._block.append(data)
        else:
            self._cell_is_empty = False
            self._layout.text(data)

    def _start(self, name: str, details: Any) -> None:
        layout = self._layout
        match name:
            case "Paragraph" | "BlockQuote" | "HtmlBlock":
                layout.gap(2)
            case "Heading":
                layout.gap(3)
                level = int(details["level"][1])
                layout.open("heading", number=level)
                if level == 1 and self.heading is None:
                    self._from = layout.position()
            case "CodeBlock":
                layout.gap(2)
                layout.open("code", _language(details))
                self._code = True
            case "List":
                layout.gap(1 if self._lists else 2)
                self._lists.append(details)
            case "Item":
                layout.gap(1)
                number = self._lists[-1]
                sign = "-" if number is None else f"{number}."
                self._lists[-1] = None if number is None else number + 1
                layout.mark("  " * (min(len(self._lists), _DEEPEST) - 1) + sign + " ")
            case "Table":
                layout.gap(2)
                layout.open("table")
            case "TableHead" | "TableRow":
                layout.row()
            case "TableCell":
                layout.cell()
                self._cell_is_empty = True

    def _end(self, name: str) -> None:
        layout = self._layout
        match name:
            case "Paragraph" | "BlockQuote":
                layout.gap(2)
            case "Heading":
                layout.gap(2)
                layout.close("heading")
                if self._from is not None:
                    self.heading, self._from = layout.since(self._from) or None, None
            case "CodeBlock":
                layout.text("".join(self._block), verbatim=True)
                self._block, self._code = [], False
                layout.close("code")
                layout.gap(2)
            case "HtmlBlock":
                read_html("".join(self._block), layout)
                self._block = []
                layout.gap(2)
            case "List":
                self._lists.pop()
                layout.gap(1 if self._lists else 2)
            case "Table":
                layout.close("table")
                layout.gap(2)
            case "TableCell":
                self._filled += self._cell_is_empty


_DEEPEST = 64  # levels of lists that are set in: a deeper one would be more space than text


def _tag(value: str | Mapping[str, Any]) -> tuple[str, Any]:
    """The name of a tag and its details, which most have not."""
    if isinstance(value, str):
        return value, None
    ((name, details),) = value.items()
    return name, details


def _language(details: Any) -> str:
    """The first word of what is behind a fence; nothing for indented code."""
    told = details.get("Fenced", "") if isinstance(details, Mapping) else ""
    found = _LANGUAGE.match(told.strip())
    return found[1].lower() if found else ""
