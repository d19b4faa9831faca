"""A document's readable text and structure, whatever it was sent as; what is no text is refused."""

import re
from dataclasses import dataclass

from services.retrieve.corpus.parsing.html import read_html
from services.retrieve.corpus.parsing.layout import Layout
from services.retrieve.corpus.parsing.markdown import read_markdown
from services.retrieve.corpus.parsing.tables import read_csv, read_json
from services.retrieve.corpus.parsing.tidy import LINE_ENDS, tidy, tidy_line
from services.retrieve.stores.base import DocumentFormat
from services.retrieve.stores.outline import Outline
from shared.errors import ApiError

# Part of every document's hash: raise it whenever the same bytes would be read otherwise.
PARSER = "parse-4"

_MAX_TITLE_CHARACTERS = 300
# More control or replacement characters than these: a file that was read as text but is none.
_MAX_UNREADABLE_SHARE = 0.05
_MAX_UNREADABLE = 4

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1a\x7f\ufffd]")


@dataclass(frozen=True)
class Parsed:
    """`text` is what chunks are cut from and offsets refer to, those of `outline` among them;
    `title` may come from the document."""

    text: str
    title: str | None
    outline: Outline = ()


def parse(
    text: str, format_: DocumentFormat, title: str | None, *, param: str, language: str = ""
) -> Parsed:
    """Read a document that is text of `format_`; a given title goes before one that is found.

    language: of source code (format `code`), if known. Raises ApiError naming `param`: 415 for a
    PDF or other binary file, or a format that is not sent as text; 422 for text that is broken or
    where nothing is left to read.
    """
    _refuse_binary(text, param)
    layout = Layout()
    found: str | None = None
    match format_:
        case "markdown":
            found = read_markdown(LINE_ENDS.sub("\n", text), layout)
        case "html":
            found = read_html(text, layout)
        case "csv":
            read_csv(text, layout, param=param)
        case "json":
            read_json(text, layout)
        case "code":
            layout.open("code", language)
            layout.text(text)
        case "text":
            layout.text(text)
        case _:
            raise ApiError(
                415,
                "unsupported_format",
                f"{param} is sent as text, and {format_} is no format of text: send the file's "
                "bytes",
                param=param,
            )
    return parsed(layout, format_, title, found, param=param)


def parsed(
    layout: Layout, format_: DocumentFormat, title: str | None, found: str | None, *, param: str
) -> Parsed:
    """What was laid out, tidied. Raises ApiError 422 `no_text`."""
    readable, outline = tidy(*layout.result())
    if not any(character.isprintable() and character != " " for character in readable):
        raise ApiError(
            422,
            "no_text",
            f"{param} has nothing to read in it (format {format_}): check what was sent",
            param=param,
        )
    line = tidy_line(title or "") or tidy_line(found or "")
    return Parsed(readable, line[:_MAX_TITLE_CHARACTERS].rstrip() or None, outline)


def _refuse_binary(text: str, param: str) -> None:
    """Raise ApiError for what is no text."""
    if text.lstrip("\ufeff \t\r\n").startswith("%PDF-"):
        raise _no_text(param, "a PDF file")
    unreadable = len(_UNREADABLE.findall(text))
    if "\x00" in text or unreadable > max(_MAX_UNREADABLE, _MAX_UNREADABLE_SHARE * len(text)):
        raise _no_text(param, "a binary file, or text in another encoding than UTF-8")
    if broken := _SURROGATE.search(text):
        raise ApiError(
            422,
            "broken_text",
            f"{param} has half a character (U+{ord(broken[0]):04X}) at position {broken.start()}: "
            "send valid Unicode",
            param=param,
        )


def _no_text(param: str, what: str) -> ApiError:
    return ApiError(
        415,
        "unsupported_format",
        f"{param} is {what}, not text: send the text that is in it, as UTF-8",
        param=param,
    )
