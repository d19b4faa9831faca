"""The readable text of an HTML page.

The page is read as a stream of tags, without building a tree. A tree builder must repair what is
sent to it, and both that the suite could use take quadratic time or memory for some short hostile
pages (html.parser for unclosed tags and comments, lexbor for deep nesting); every step here moves
forward, so time is linear in the page's length.
"""

import re
from html import unescape

from services.retrieve.corpus.layout import Layout

# Elements whose content is not read: not meant for readers, or the same on every page of a site.
_SKIPPED = {"head", "nav", "noscript", "object", "svg", "template"}
# Elements whose content is no markup: it ends at the closing tag, whatever is in between.
_RAW = {"iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"}
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_PARAGRAPHS = {
    *_HEADINGS,
    *("address", "article", "aside", "blockquote", "details", "dl", "fieldset", "figure", "footer"),
    *("form", "header", "hr", "main", "ol", "p", "pre", "section", "table", "ul"),
}
_LINES = {"br", "caption", "dd", "div", "dt", "figcaption", "li", "option", "summary", "tr"}
_CELLS = {"td", "th"}

_MARKUP = re.compile(r"<(?:(?P<comment>!--)|(?P<other>[!?])|(?P<end>/?)(?P<name>[a-zA-Z][^\s/>]*))")
# A tag ends at the first ">" that is in no quoted value.
_TAG_PART = re.compile(r""">|=\s*+(?:"[^"]*+"|'[^']*+')""")
_SPACE = re.compile(r"\s+")


def read_html(page: str) -> tuple[str, str | None]:
    """The text of a page, and its title (`<title>`, or the first `<h1>`) if it has one.

    Paragraphs are set apart by a blank line, headings by two before them; list items and cells are
    marked; `<pre>` keeps its lines. Scripts, styles, navigation and the like are left out.
    """
    reader = _Reader()
    at = 0
    while markup := _MARKUP.search(page, at):
        reader.text(page[at : markup.start()])
        name = (markup["name"] or "").lower()
        if markup["comment"]:
            end = page.find("-->", markup.end())
            at = end + 3 if end >= 0 else len(page)
        elif (end := _tag_end(page, markup.end())) < 0:
            at = len(page)  # a tag that never ends: browsers drop it, too
        elif name in _RAW and not markup["end"]:
            close = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, end)
            reader.raw(name, page[end : close.start()] if close else "")
            at = _tag_end(page, close.end()) if close else len(page)
            at = at if at >= 0 else len(page)
        else:
            if name:
                reader.tag(name, closing=bool(markup["end"]))
            at = end
    reader.text(page[at:])
    return reader.layout.result(), reader.title or reader.heading


def _tag_end(page: str, at: int) -> int:
    """Where the tag that `at` is in has ended, or -1."""
    while part := _TAG_PART.search(page, at):
        if part[0] == ">":
            return part.end()
        at = part.end()
    return -1


class _Reader:
    """Takes tags and texts in order and lays out the readable text."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.title: str | None = None
        self.heading: str | None = None
        self._skipping = ""
        self._depth = 0
        self._preformatted = 0
        self._heading_from: int | None = None

    def text(self, data: str) -> None:
        """Text between two tags."""
        if not data or self._depth:
            return
        data = unescape(data)
        if self._preformatted:
            self.layout.text(data, verbatim=True)
        else:
            self.layout.text(_SPACE.sub(" ", data))

    def raw(self, name: str, data: str) -> None:
        """An element with its whole content."""
        if name == "title" and self.title is None and self._skipping in ("", "head"):
            self.title = unescape(data).strip() or None
        elif name in ("textarea", "xmp"):
            self.text(data)

    def tag(self, name: str, *, closing: bool) -> None:
        """An opening or closing tag of any other element."""
        if self._depth:
            if name == self._skipping:
                self._depth += -1 if closing else 1
            elif self._skipping == "head" and name == "body":
                self._depth = 0  # </head> may be left out
            return
        if name in _SKIPPED and not closing:
            self._skipping, self._depth = name, 1
        elif name in _PARAGRAPHS:
            self.layout.gap(3 if name in _HEADINGS and not closing else 2)
        elif name in _LINES:
            self.layout.gap(1)
        elif name in _CELLS and not closing:
            self.layout.cell()
        if name == "li" and not closing:
            self.layout.mark("- ")
        elif name == "pre":
            self._preformatted = max(0, self._preformatted + (-1 if closing else 1))
        elif name == "h1" and self.heading is None:
            self._note_heading(closing=closing)

    def _note_heading(self, *, closing: bool) -> None:
        if not closing:
            self._heading_from = self.layout.position()
        elif self._heading_from is not None:
            self.heading = self.layout.since(self._heading_from) or None
            self._heading_from = None  # a second closing tag has nothing of its own to look at
