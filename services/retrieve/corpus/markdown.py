"""The readable text of a Markdown document."""

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.retrieve.corpus.html import read_html

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.M)
_FRONT_TITLE = re.compile(r"""^title:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.MULTILINE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_parser = MarkdownIt("commonmark").enable("table")


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
            title = found[2]
    tokens = _parser.parse(source)
    parts: list[str] = []
    marks: list[str] = []  # of the lists that are open: "-", or the dot of numbered ones
    for place, token in enumerate(tokens):
        if token.type == "inline":
            parts.append(_inline(token.children or []))
            if title is None and tokens[place - 1].type == "heading_open":
                title = parts[-1] if tokens[place - 1].tag == "h1" else None
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            marks.append("-")
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            marks.pop()
            parts.append("\n")
        elif token.type == "list_item_open":
            mark = f"{token.info}{token.markup}" if token.info else "-"
            fresh = not parts or parts[-1].endswith("\n")
            parts.append(("" if fresh else "\n") + "  " * (len(marks) - 1) + f"{mark} ")
        elif token.type in ("th_open", "td_open"):
            if tokens[place - 1].type != "tr_open":
                parts.append(" | ")
        elif block := _block(token, tight=bool(marks)):
            parts.append(block)
    return "".join(parts), title


def _block(token: Token, *, tight: bool) -> str:
    """What a token outside of a line gives. In a list, a paragraph needs no blank line."""
    match token.type:
        case "heading_open":
            return "\n\n\n"
        case "paragraph_close":
            return "\n" if tight else "\n\n"
        case "heading_close" | "blockquote_close" | "table_close" | "hr":
            return "\n\n"
        case "fence" | "code_block":
            return f"\n{token.content.rstrip()}\n\n"
        case "html_block":
            return f"{read_html(token.content)[0]}\n\n"
        case "tr_close":
            return "\n"
        case _:
            return ""


def _inline(children: Sequence[Token]) -> str:
    """The text of one line's tokens; a line break in the source is a space."""
    parts: list[str] = []
    for token in children:
        match token.type:
            case "text" | "text_special":
                parts.append(token.content)
            case "code_inline":
                parts.append(f"`{token.content}`")
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(_inline(token.children or []))
            case "html_inline" if _BREAK.fullmatch(token.content):
                parts.append("\n")
    return "".join(parts)
