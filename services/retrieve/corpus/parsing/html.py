"""The readable text of an HTML page.

The page is read as a stream of tags, without building a tree. A tree builder must repair what is
sent to it, and both that the suite could use take quadratic time or memory for some short hostile
pages (html.parser for unclosed tags and comments, lexbor for deep nesting); every step here moves
forward, so time is linear in the page's length.
"""

import re
from html import unescape

from services.retrieve.corpus.parsing.layout import Layout

# Elements whose content is not read: not meant for readers, or the same on every page of a site.
_SKIPPED = {"nav", "noscript", "object", "svg", "template"}
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

# A tag ends at the first ">" that is in no quoted value.
_INSIDE = r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+'|))*+"""
# Text, if there is some, and the tag that follows it.
_PIECE = re.compile(rf"([^<]*+)<(/?)([a-zA-Z][^\s/>]*+)({_INSIDE})>")
_DECLARATION = re.compile(rf"<[!?]{_INSIDE}>")
_UNENDED = re.compile(r"</?[a-zA-Z]|<[!?]")
_CLOSING = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _RAW}
# What tools write for the language of the code in an element.
_LANGUAGE = re.compile(
    r"""\bclass\s*+=\s*+["']?[^"'>]*?\b(?:language|lang|highlight|sourceCode|src)[- ]([\w+#.-]++)"""
)
_LANGUAGE_WITHIN = 1000  # characters of a tag
_NO_LANGUAGE = {"default", "none", "notranslate", "plain", "plaintext", "text", "txt"}
# What a value without quotes does not hold.
_PAST_VALUE = re.compile(r"""[\s"']""")
# White space that is not one space already.
_SPACE = re.compile(r"\s\s+|[^\S ]")
_HANDLED = _SKIPPED | _PARAGRAPHS | _LINES | _CELLS


def read_html(page: str, layout: Layout) -> str | None:
    """Lay out the text of a page; its title (`<title>`, or the first `<h1>`) if it has one.

    Paragraphs are set apart by a blank line, headings by two before them; list items and cells are
    marked; `<pre>` keeps its lines. Scripts, styles, navigation and the like are left out.
    Headings, tables, their rows and `<pre>` with its language become parts of the layout.
    """
    reader = _Reader(layout)
    depth = layout.depth
    at = 0
    while True:
        if piece := _PIECE.match(page, at):
            text, slash, name, inside = piece.groups()
            at = piece.end()
            if text:
                reader.words.append(text)
            name = name.lower()
            if name in _HANDLED:
                reader.tag(name, inside, closing=bool(slash))
            elif name == "code":
                reader.language(inside)
            elif name in _RAW and not slash and not _closes_itself(inside):
                close = _CLOSING[name].search(page, at)
                reader.raw(name, page[at : close.start()] if close else "")
                end = _PIECE.match(page, close.start()) if close else None
                at = end.end() if end else len(page)
            continue
        begin = page.find("<", at)
        if begin < 0:
            break
        reader.words.append(page[at:begin])
        if page.startswith("<!--", begin):
            end_of_comment = page.find("-->", begin + 4)
            at = end_of_comment + 3 if end_of_comment >= 0 else len(page)
        elif declaration := _DECLARATION.match(page, begin):
            at = declaration.end()
        elif _UNENDED.match(page, begin):
            at = len(page)  # a tag that never ends: browsers drop it, too
        else:
            reader.words.append("<")
            at = begin + 1
    reader.words.append(page[at:])
    reader.text()
    layout.close_to(depth)
    return reader.title or reader.heading


class _Reader:
    """Takes tags and texts in order and lays out the readable text.

    words: the pieces of text since the last tag that parts them; tags of a few words in a line are
    none.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.words: list[str] = []
        self.title: str | None = None
        self.heading: str | None = None
        self._skipping = ""
        self._depth = 0
        self._preformatted = 0
        self._language = ""
        self._heading_from: int | None = None

    def text(self) -> None:
        """Lay out the words."""
        data = "" if self._depth else "".join(self.words)
        self.words.clear()
        if not data:
            return
        if "&" in data:
            data = unescape(data)
        if self._preformatted:
            self.layout.text(data, verbatim=True)
        else:
            self.layout.text(" " if data.isspace() else _SPACE.sub(" ", data))

    def raw(self, name: str, data: str) -> None:
        """An element with its whole content."""
        if name == "title" and self.title is None and not self._depth:
            self.title = unescape(data).strip() or None
        elif name in ("textarea", "xmp"):
            self.words.append(data)

    def tag(self, name: str, inside: str, *, closing: bool) -> None:
        """An opening or closing tag of any other element; `inside`: its attributes."""
        self.text()
        if self._depth:
            if name == self._skipping and (closing or not _closes_itself(inside)):
                self._depth += -1 if closing else 1
            return
        if name in _SKIPPED and not closing and not _closes_itself(inside):
            self._skipping, self._depth = name, 1
        elif name in _PARAGRAPHS:
            self.layout.gap(3 if name in _HEADINGS and not closing else 2)
        elif name in _LINES:
            self.layout.gap(1)
        elif name in _CELLS and not closing:
            self.layout.cell()
        if name in _HEADINGS:
            self._part_heading(name, closing=closing)
        elif name == "div":
            self.language(inside)
        elif name == "li" and not closing:
            self.layout.mark("- ")
        elif name == "pre":
            self._part_code(inside, closing=closing)
        elif name == "table":
            (self.layout.close if closing else self.layout.open)("table")
        elif name == "tr":
            self.layout.close("row") if closing else self.layout.row()

    def language(self, inside: str) -> None:
        """Note the language of code from the attributes of an element in it or around it."""
        if inside and not self._depth:
            self._language = _language(inside) or self._language
            if self._preformatted:
                self.layout.name(self._language)

    def _part_heading(self, name: str, *, closing: bool) -> None:
        self.layout.close("heading")
        if not closing:
            self.layout.open("heading", number=int(name[1]))
        if name == "h1" and self.heading is None:
            if not closing:
                self._heading_from = self.layout.position()
            elif self._heading_from is not None:
                self.heading = self.layout.since(self._heading_from) or None
                self._heading_from = None  # a second closing tag has nothing of its own to look at

    def _part_code(self, inside: str, *, closing: bool) -> None:
        self._preformatted = max(0, self._preformatted + (-1 if closing else 1))
        self.layout.close("code")
        if not closing:
            self.layout.open("code", _language(inside) or self._language)
        self._language = ""


def _closes_itself(inside: str) -> bool:
    """Whether an opening tag ends its element, as in XML; a slash that ends a value without quotes
    is the value's."""
    if not inside.endswith("/"):
        return False
    _, given, value = inside[:-1].rpartition("=")
    return not given or bool(_PAST_VALUE.search(value.lstrip()))


def _language(inside: str) -> str:
    found = _LANGUAGE.search(inside, 0, _LANGUAGE_WITHIN)
    language = found[1].lower() if found else ""
    return "" if language in _NO_LANGUAGE else language
