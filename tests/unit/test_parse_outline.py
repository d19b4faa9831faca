"""The marks of an outline lie around the words that they stand for, whatever the tidying moves."""

import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.corpus.parsing.parse import Parsed, parse
from services.retrieve.corpus.parsing.tidy import tidy
from services.retrieve.stores.base import DocumentFormat
from services.retrieve.stores.outline import Mark

# Letters that compose, spaces of all kinds, controls: what the tidying moves or takes away.
SIGNS = "ab eé\u0301\u0316\t\xa0\u2003\u3000\ufeff\u1100\u1161日😀"
WORDS = st.text(st.sampled_from(SIGNS), max_size=12)
HEADINGS = st.tuples(st.integers(1, 6), WORDS)
BODIES = st.text(st.sampled_from(SIGNS + "\n\r\u2028"), max_size=30)


def words(text: str) -> str:
    return " ".join(tidy(text)[0].split())


def headings(parsed: Parsed) -> list[tuple[int, str]]:
    found = []
    for mark in parsed.outline:
        if mark.kind == "heading":
            assert " ".join(parsed.text[mark.start : mark.end].split()) == mark.name
            found.append((mark.number, mark.name))
    return found


def read(text: str, format_: DocumentFormat) -> Parsed:
    return parse(f"{text}\n\nthe end", format_, None, param="text")


@settings(max_examples=150)
@given(parts=st.lists(st.tuples(HEADINGS, BODIES), max_size=6))
def test_a_heading_of_a_page_is_marked_by_its_words(
    parts: list[tuple[tuple[int, str], str]],
) -> None:
    page = "".join(
        f"<p>{body}</p><h{level}> w{title}<!-- x --> </h{level}><pre>{body}\t</pre>"
        for (level, title), body in parts
    )
    told = [(level, words(f"w{title}")) for (level, title), _ in parts]
    assert headings(read(page, "html")) == told


@settings(max_examples=150)
@given(parts=st.lists(st.tuples(HEADINGS, BODIES), max_size=6))
def test_a_heading_of_markdown_is_marked_by_its_words(
    parts: list[tuple[tuple[int, str], str]],
) -> None:
    # A letter at both ends: Markdown strips white space of its own choice.
    source = "\n\n".join(
        f"```\n{body}\n```\n\n{'#' * level} x{title}*y* ##" for (level, title), body in parts
    )
    told = [(level, words(f"x{title}y")) for (level, title), _ in parts]
    assert headings(read(source, "markdown")) == told


@settings(max_examples=200)
@given(
    text=st.text(st.sampled_from(SIGNS + "\n\r"), max_size=80),
    spans=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=6),
)
def test_tidying_with_marks_gives_the_text_of_tidying_without(
    text: str, spans: list[tuple[int, int]]
) -> None:
    marks = [
        Mark("page", min(a, len(text)), min(b, len(text)), number=n)
        for n, (a, b) in enumerate(spans)
        if a < b
    ]
    tidied, outline = tidy(text, marks)
    assert tidied == tidy(text)[0]
    for mark in outline:
        assert 0 <= mark.start < mark.end <= len(tidied)
        inside = tidied[mark.start : mark.end]
        assert inside == inside.strip()
        given_mark = marks[[one.number for one in marks].index(mark.number)]
        # The same letters, but for one that was composed over the border of the mark.
        before = _letters(text[given_mark.start : given_mark.end])
        assert abs(len(before) - len(_letters(inside))) <= 2


def _letters(text: str) -> str:
    kept = re.sub(r"[\s\x01\ufeff]", "", unicodedata.normalize("NFD", text))
    return "".join(one for one in kept if not unicodedata.combining(one))


def test_the_outline_is_in_order_and_an_outer_mark_is_before_those_in_it() -> None:
    page = (
        "<h1>One</h1><table><tr><td><h2>Two</h2></td><td>b<tr><td>c</table><ul><li><h3>Three</h3>"
        "</ul><pre>code</pre>"
    )
    parsed = parse(page, "html", None, param="text")
    assert [(mark.kind, parsed.text[mark.start : mark.end]) for mark in parsed.outline] == [
        ("heading", "One"),
        ("table", "Two\n\n | b\nc") if "Two\n\n | b" in parsed.text else ("table", "Two\n\nb\nc"),
        ("row", parsed.text[parsed.text.index("Two") : parsed.text.index("\nc")]),
        ("heading", "Two"),
        ("row", "c"),
        ("heading", "Three"),
        ("code", "code"),
    ]


def test_what_is_too_long_for_a_heading_is_none() -> None:
    parsed = parse(f"<h1>{'word ' * 200}</h1>x", "html", None, param="text")
    assert parsed.outline == ()


def test_a_heading_that_never_ends_is_closed_by_the_next_one() -> None:
    parsed = parse("<h2>One<h3>Two</h3>text", "html", None, param="text")
    assert headings(parsed) == [(2, "One"), (3, "Two")]
