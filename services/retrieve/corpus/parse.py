"""A document's readable text, whatever it was sent as; what is no text is refused."""

import re
import unicodedata
from dataclasses import dataclass

from services.retrieve.corpus.html import read_html
from services.retrieve.corpus.markdown import read_markdown
from services.retrieve.stores.base import DocumentFormat
from shared.errors import ApiError

_MAX_TITLE_CHARACTERS = 300
# More control or replacement characters than these: a file that was read as text but is none.
_MAX_UNREADABLE_SHARE = 0.05
_MAX_UNREADABLE = 4

_SURROGATE = re.compile("[\ud800-\udfff]")
# All the other ways to end a line or a page, and to leave a space, made one: so few kinds of white
# space are left that the chunker can look for the widest gap without going round in circles.
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SPACES = re.compile("[\x1c-\x1f\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1a\x7f\ufffd]")
_LINE_TAIL = re.compile(r"(?<! ) +$", re.MULTILINE)  # from a run's first space on: linear
_WIDE_SPACE = re.compile(r" {41,}")
_WIDE_GAP = re.compile(r"\n{4,}")
# Putting a run of marks into its canonical order takes quadratic time. No letter of any language
# has 30 of them (Unicode Standard Annex 15, stream-safe text).
_MARKS = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x20000))))
_TOO_MANY_MARKS = re.compile(f"([{_MARKS}]{{30}})[{_MARKS}]+")


@dataclass(frozen=True)
class ParsedDocument:
    """`text` is what chunks are cut from and offsets refer to; `title` may come from the text."""

    text: str
    title: str | None


def parse(text: str, format_: DocumentFormat, title: str | None, *, param: str) -> ParsedDocument:
    """Read a document that was sent as `format_`; a given title goes before one that is found.

    Raises ApiError naming `param`: 415 for a PDF or other binary file, 422 for text that is broken
    or where nothing is left to read.
    """
    _refuse_binary(text, param)
    if format_ == "markdown":
        readable, found = read_markdown(_LINE_ENDS.sub("\n", text))
    elif format_ == "html":
        readable, found = read_html(text)
    else:
        readable, found = text, None
    readable = _tidy(readable)
    if not any(character.isprintable() and character != " " for character in readable):
        raise ApiError(
            422,
            "no_text",
            f"{param} has nothing to read in it (format {format_}): check what was sent",
            param=param,
        )
    line = " ".join(_tidy(title or "").split()) or " ".join(_tidy(found or "").split())
    return ParsedDocument(readable, line[:_MAX_TITLE_CHARACTERS].rstrip() or None)


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


def _tidy(text: str) -> str:
    """One kind of line end, two kinds of white space, no control characters, no wide gaps, at most
    30 marks on a letter."""
    text = unicodedata.normalize("NFC", _TOO_MANY_MARKS.sub(r"\1", text))
    text = _LINE_ENDS.sub("\n", text).replace("\t", "    ")
    text = _CONTROLS.sub("", _SPACES.sub(" ", text))
    text = _LINE_TAIL.sub("", text)
    return _WIDE_GAP.sub("\n\n\n", _WIDE_SPACE.sub(" " * 40, text)).strip()
