"""The readable text of what is sent as text, Markdown or HTML; what is no text is refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.corpus.parsing.parse import parse
from services.retrieve.stores.base import DocumentFormat
from shared.errors import ApiError

FORMATS: list[DocumentFormat] = ["text", "markdown", "html"]


def read(text: str, format_: DocumentFormat = "text", title: str | None = None) -> str:
    """The parsed text."""
    return parse(text, format_, title, param="documents.0.text").text


def title_of(text: str, format_: DocumentFormat, title: str | None = None) -> str | None:
    """The parsed title."""
    return parse(text, format_, title, param="documents.0.text").title


def refusal(text: str, format_: DocumentFormat = "text") -> ApiError:
    """The error that parsing raises."""
    with pytest.raises(ApiError) as failure:
        parse(text, format_, None, param="documents.3.text")
    assert failure.value.param == "documents.3.text"
    assert "documents.3.text" in failure.value.message
    return failure.value


# --- text ----------------------------------------------------------------------------------------


def test_text_stays_as_it_is() -> None:
    text = "First line\n    indented\n\nNext * paragraph_ & <b>"
    assert read(text) == text


def test_line_ends_and_white_space_become_of_one_kind() -> None:
    assert read("a\r\nb\rc\u2028d\x0ce") == "a\nb\nc\nd\ne"
    assert read("a\tb\xa0c\u3000d   \n e") == "a    b c d\n e"
    assert read("\ufeffa\u0001b") == "ab"
    assert read("a" + "\n" * 9 + "b" + " " * 90 + "c") == "a\n\n\nb" + " " * 40 + "c"


@pytest.mark.parametrize("format_", FORMATS)
def test_marks_heaped_on_a_letter_are_cut_and_take_one_pass(format_: DocumentFormat) -> None:
    # Putting half a million marks in order would take an hour, with everything else waiting.
    heap = "\u0301" * 500_000 + "\u0316" * 500_000
    assert read(f"a{heap}b", format_) == "\u00e1" + "\u0301" * 29 + "b"
    assert read("a" + "\u0301\u0316" * 15, format_) == "\u00e1" + "\u0316" * 15 + "\u0301" * 14


def test_accents_are_composed() -> None:
    assert read("cafe\u0301") == "café"


def test_a_title_is_one_line_and_not_too_long() -> None:
    assert title_of("x", "text", " A\n  title\t") == "A title"
    assert title_of("x", "text", " \n ") is None
    assert title_of("x", "text", "t" * 1000) == "t" * 300


@pytest.mark.parametrize("format_", FORMATS)
def test_a_pdf_sent_as_text_is_refused(format_: DocumentFormat) -> None:
    error = refusal("%PDF-1.7\n%\u00e2\u00e3\n1 0 obj << /Type /Catalog >>", format_)
    assert (error.status, error.code) == (415, "unsupported_format")
    assert "PDF" in error.message
    assert refusal("\ufeff \n%PDF-1.4", format_).status == 415


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00 document.xml",
        b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)),
        bytes(range(256)) * 4,
        "Umlaute äöü ".encode("utf-16"),
    ],
)
def test_a_binary_file_read_as_text_is_refused(data: bytes) -> None:
    assert refusal(data.decode("utf-8", "replace")).status == 415


def test_a_stray_control_character_is_no_reason_to_refuse() -> None:
    assert read("A page.\x07 More\x0b\ufffd") == "A page. More\n\ufffd"


def test_half_a_character_is_refused_with_its_place() -> None:
    error = refusal("ab\ud800c")
    assert (error.status, error.code) == (422, "broken_text")
    assert "position 2" in error.message


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        (" \n\t ", "text"),
        ("\u200b\u200b", "text"),
        ("\x01", "text"),
        ("<script>alert(1)</script><!-- note -->", "html"),
        ("<div> &nbsp; </div>", "html"),
        ("---\ntitle: Only front matter\n---\n", "markdown"),
        ("<!-- comment -->", "markdown"),
    ],
)
def test_a_document_with_nothing_to_read_is_refused(text: str, format_: DocumentFormat) -> None:
    error = refusal(text, format_)
    assert error.status in (415, 422)


# --- Markdown ------------------------------------------------------------------------------------


def test_markdown_is_read_as_a_reader_sees_it() -> None:
    source = (
        '# Guide *one*\n\nSee **the** [manual](https://x.y/z "t") and `code_x`,\nsoft  \nhard.'
        "\n\n> quoted\n\n![a picture](p.png) &amp; \\*star\\* ~ <b>html</b>\n"
    )
    assert read(source, "markdown") == (
        "Guide one\n\nSee the manual and `code_x`, soft\nhard.\n\nquoted\n\n"
        "a picture & *star* ~ html"
    )


def test_code_keeps_its_lines_and_its_signs() -> None:
    source = "Run:\n\n```sh\nmake *all* [x](y)\n  indented\n```\n\nand\n\n    plain code\n"
    assert "make *all* [x](y)\n  indented" in read(source, "markdown")
    assert "plain code" in read(source, "markdown")


def test_lists_and_tables_keep_their_marks() -> None:
    source = "Intro\n\n- one\n- two\n  1. deep\n  2. deeper\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert read(source, "markdown") == (
        "Intro\n\n- one\n- two\n  1. deep\n  2. deeper\n\na | b\n1 | 2"
    )


def test_a_title_followed_by_a_wide_space_takes_one_pass() -> None:
    source = "---\ntitle: a" + " " * 1_000_000 + "b\n---\ntext"
    assert (read(source, "markdown"), title_of(source, "markdown")) == ("text", "a b")


def test_tables_of_almost_nothing_do_not_grow_into_a_flood() -> None:
    # A wide head and rows of one cell: filled up, each of these is 65,000 cells.
    table = "|a" * 256 + "|\n" + "|-" * 256 + "|\n" + "x\n" * 256 + "\n"
    source = "| one | two |\n|---|---|\n| short |\n\n" + table * 40 + "the end"
    text = read(source, "markdown")
    assert text.startswith("one | two\nshort |\n")
    assert text.endswith("the end")
    assert len(text) < 2_000_000


def test_a_heading_has_the_widest_gap_before_it() -> None:
    text = read("# A\n\none\n\ntwo\n\n## B\n\nthree\n\nTitle\n=====\n\nx", "markdown")
    assert text == "A\n\none\n\ntwo\n\n\nB\n\nthree\n\n\nTitle\n\nx"


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ('---\ntitle: "Front: matter"\nx: 1\n---\n# Heading\n\ntext', "Front: matter"),
        ("---\r\ntitle: Windows lines\r\n---\r\ntext", "Windows lines"),
        ("---\ntitle:\t'It''s'  \n---\ntext", "It''s"),
        ('---\ntitle: "no end\n---\ntext', '"no end'),
        ('---\ntitle: ""\n---\n# Heading', "Heading"),
        ("intro\n\n## Second\n\n# The *first*\n\n# Third", "The first"),
        ("## Only second level\n\ntext", None),
        ("---\n\nA rule, no front matter\n\n---\n", None),
    ],
)
def test_the_title_is_the_front_matters_or_the_first_heading(
    source: str, title: str | None
) -> None:
    assert title_of(source, "markdown") == title
    assert title_of(source, "markdown", "Given") == "Given"


# --- HTML ----------------------------------------------------------------------------------------


def test_html_is_read_as_a_reader_sees_it() -> None:
    page = """<!DOCTYPE html><html><head><title>The &amp; page</title><style>p {}</style></head>
    <body><nav><a>Home</a> <a>About</a></nav><h1>Big <em>news</em></h1>
    <p>First&nbsp;line<br>second &lt;line&gt;</p><script>if (a < b) { "</p>" }</script>
    <ul><li>one<li>two</ul><pre>def f():
        return 1</pre>
    <table><tr><th>a</th><th title="x > y">b</th></tr><tr><td>1<td>2</table>
    <template>hidden</template><noscript>no</noscript><svg><text>drawn</text></svg>end</body></html>
    """
    text = read(page, "html")
    assert [line.strip() for line in text.split("\n") if line.strip()] == [
        "Big news",
        "First line",
        "second <line>",
        "- one",
        "- two",
        "def f():",
        "return 1",
        "a | b",
        "1 | 2",
        "end",
    ]
    assert "        return 1" in text
    assert title_of(page, "html") == "The & page"


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<h1>A <b>heading</b></h1><p>x</p>", "A heading"),
        ("<title> </title><h1>H</h1>x", "H"),
        ("<body><svg><title>icon</title></svg>x", None),
        ("<p>x", None),
    ],
)
def test_the_title_is_the_title_elements_or_the_first_heading(page: str, title: str | None) -> None:
    assert title_of(page, "html") == title


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("a<!-- b -- > c", "a"),
        ("a <b", "a"),
        ("1 < 2 and <3", "1 < 2 and <3"),
        ("a<script>x", "a"),
        ("<SCRIPT>x</ScRiPt >a", "a"),
        ("<head><meta x><body>a", "a"),
        ("<p title='it>s'>a</p title=\"b\">c", "a\n\nc"),
        ("<a title=it's>a</a>", "a"),
        ("<textarea>typed <b></textarea>", "typed <b>"),
        ("</p></div>a", "a"),
        ("a<![CDATA[x]]>b", "ab"),
        ("<?xml version='1'?>a", "a"),
        ("&#x41;&eacute;&bogus;&", "Aé&bogus;&"),
        ("<head><title>t</title><p>a", "a"),
        ("a<svg width=0 />b<object data='x'/>c", "abc"),
        ("<?xml version='1.0'?><script src='x'/>a<iframe src='y' />b", "ab"),
        ("a<script src=/a/>var x</script>b<svg hidden/>c<object data= /x/>d</object>e", "abce"),
        ("a<script async src=x />b<iframe title='a=b'/>c<svg/>d", "abcd"),
        ("<nav>m</nav/><p>a", "a"),
        ("a <b> b </b> c<i>\n</i>d", "a b c d"),
    ],
)
def test_broken_pages_are_read_as_far_as_they_go(page: str, text: str) -> None:
    assert read(page, "html") == text


@pytest.mark.parametrize(
    "part",
    [
        "<div>",
        "<!--",
        "<div class=",
        "<a ",
        '<a b="',
        "<![CDATA[",
        "</",
        "<p><b a=1>",
        "&#x",
        "<nav>",
        "<title>",
    ],
)
def test_a_hostile_page_takes_one_pass(part: str) -> None:
    # A quadratic reader would need minutes for any of these.
    page = "seen " + part * 100_000 + ">"
    assert read(page, "html").startswith("seen")


def test_a_heading_that_is_closed_again_and_again_takes_one_pass() -> None:
    page = "<h1><pre>" + " </h1>" * 100_000 + "seen"
    assert read(page, "html") == "seen"


# --- all -----------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    text=st.text(
        st.sampled_from(list("ab <>/!-&;\"'=#*`[]()|\n\t\r\\_~:.0\u2028\xa0é😀")), max_size=200
    ),
    format_=st.sampled_from(FORMATS),
)
def test_whatever_is_sent_gives_tidy_text_or_an_error(text: str, format_: DocumentFormat) -> None:
    try:
        parsed = parse(text, format_, None, param="documents.0.text")
    except ApiError as error:
        assert error.code in ("no_text", "unsupported_format")  # noqa: PT017 - one of two ends
        return
    assert parsed.text == parsed.text.strip() != ""
    assert not re.search(r"[\r\t\xa0\u2028]|\n{4}| \n| {41}", parsed.text)
    assert parsed.title is None or parsed.title == " ".join(parsed.title.split()) != ""
