"""The readable text of a Markdown document."""

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.token import Token

from services.retrieve.corpus.html import read_html
from services.retrieve.corpus.layout import Layout

# "---" and a line that names a field: a document may also begin with a mere rule.
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=[\w-]+[ \t]*:)(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_TITLE = re.compile(r"^title:(.*)$", re.MULTILINE)
_QUOTED = re.compile(r"""(["'])(.*)\1""")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)

# Line feeds before a block's text.
_GAPS = {
    "heading_open": 3,
    "heading_close": 2,
    "blockquote_open": 2,
    "blockquote_close": 2,
    "table_open": 2,
    "tr_open": 1,
    "table_close": 2,
    "hr": 2,
    "html_block": 2,
    "fence": 2,
    "code_block": 2,
}

# Empty cells that the short rows of all tables of a document are filled up with, at most.
_MOST_FILLED = 65_536
_FILLED = "filled"


def _table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The parser's rule for tables, while the document has not filled up too many cells.

    The parser bounds them for each table, but a few hundred bytes make another table.
    """
    if state.env.get(_FILLED, 0) > _MOST_FILLED:
        return False
    before = len(state.tokens)
    found = table(state, start, end, silent)
    empty = sum(one.type == "inline" and not one.content for one in state.tokens[before:])
    state.env[_FILLED] = state.env.get(_FILLED, 0) + empty
    return found


_parser = MarkdownIt("commonmark").enable("table")
_parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})


def read_markdown(source: str) -> tuple[str, str | None]:
    """The text of a document as a reader sees it, and its title if it has one.

    The title is the front matter's, or else the first heading of the first level. Emphasis, the
    addresses of links and front matter are left out; code with its back quotes, list marks and
    table cells stay. Paragraphs are set apart by a blank line, headings by two before them.
    """
    title: str | None = None
    if front := _FRONT_MATTER.match(source):
        source = source[front.end() :]
        if found := _FRONT_TITLE.search(front[1]):
            told = found[1].strip()
            quoted = _QUOTED.fullmatch(told)
            title = (quoted[2] if quoted else told) or None
    layout = Layout()
    lists = 0
    tokens = _parser.parse(source)
    for place, token in enumerate(tokens):
        layout.gap(_GAPS.get(token.type, 0))
        match token.type:
            case "inline":
                start = layout.position()
                _inline(token.children or [], layout)
                before = tokens[place - 1]
                if title is None and (before.type, before.tag) == ("heading_open", "h1"):
                    title = layout.since(start) or None
            case "paragraph_open" | "paragraph_close":
                layout.gap(1 if token.hidden else 2)  # hidden: an item of a list without gaps
            case "bullet_list_open" | "ordered_list_open":
                layout.gap(1 if lists else 2)
                lists += 1
            case "bullet_list_close" | "ordered_list_close":
                lists -= 1
                layout.gap(1 if lists else 2)
            case "list_item_open":
                mark = token.info + token.markup if token.info else "-"
                layout.gap(1)
                layout.mark("  " * (lists - 1) + mark + " ")
            case "th_open" | "td_open":
                layout.cell()
            case "fence" | "code_block" | "html_block":
                code = token.type != "html_block"
                layout.text(token.content if code else read_html(token.content)[0], verbatim=True)
                layout.gap(2)
    return layout.result(), title


def _inline(children: Sequence[Token], layout: Layout) -> None:
    """Add the text of one block; a line break in the source is a space."""
    for token in children:
        match token.type:
            case "text" | "text_special":
                layout.text(token.content)
            case "code_inline":
                layout.text(f"`{token.content}`")
            case "softbreak":
                layout.text(" ")
            case "hardbreak":
                layout.gap(1)
            case "image":
                _inline(token.children or [], layout)
            case "html_inline" if _BREAK.fullmatch(token.content):
                layout.gap(1)
