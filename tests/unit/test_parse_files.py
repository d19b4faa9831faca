"""Files of each format are read with their structure, and bad ones get one clear error."""

from collections.abc import Callable

import pytest

from services.retrieve.corpus.parsing.file import parse_file
from services.retrieve.corpus.parsing.formats import OLE, format_of
from services.retrieve.corpus.parsing.parse import Parsed
from services.retrieve.stores.base import DocumentFormat
from services.retrieve.stores.outline import Mark
from shared.errors import ApiError
from tests import files

# Either the bytes, or what makes them, so that a file is made only when its test runs.
Data = bytes | Callable[[], bytes]


def made(data: Data) -> bytes:
    return data if isinstance(data, bytes) else data()


def read(name: str, data: bytes) -> Parsed:
    return parse_file(name, data, None, None, param="files.0")


def marked(parsed: Parsed, kind: str) -> list[tuple[int, str, str]]:
    """Number, name and text of the marks of a kind."""
    return [
        (mark.number, mark.name, parsed.text[mark.start : mark.end])
        for mark in parsed.outline
        if mark.kind == kind
    ]


def refusal(name: str, data: bytes, format_: DocumentFormat | None = None) -> ApiError:
    with pytest.raises(ApiError) as failure:
        parse_file(name, data, format_, None, param="files.0")
    assert failure.value.param == "files.0"
    assert "files.0" in failure.value.message
    return failure.value


# --- structure -----------------------------------------------------------------------------------


def test_a_docx_keeps_its_headings_and_the_rows_of_its_tables() -> None:
    parsed = read("a.docx", files.a_docx())
    assert parsed.title == "The handbook"
    assert marked(parsed, "heading") == [
        (1, "First steps", "First steps"),
        (2, "Power", "Power"),
    ]
    assert [text for _, _, text in marked(parsed, "row")] == [
        "r0c0 | r0c1",
        "r1c0 | r1c1",
        "r2c0 | r2c1",
    ]
    assert "Open the box." in parsed.text


def test_a_pptx_keeps_its_slides() -> None:
    parsed = read("a.pptx", files.a_pptx())
    assert parsed.title == "The plan"
    pages = marked(parsed, "page")
    assert [number for number, _, _ in pages] == [1, 2, 3, 4]
    assert pages[1][2] == "Step 2\n\npoint 2"
    assert [name for _, name, _ in marked(parsed, "heading")][-1] == "Costs"
    assert len(marked(parsed, "row")) == 2


def test_an_xlsx_has_its_sheets_as_headings_and_their_rows() -> None:
    parsed = read("a.xlsx", files.an_xlsx())
    assert parsed.title == "The prices"
    assert [name for _, name, _ in marked(parsed, "heading")] == ["Fruit", "Nuts"]
    assert [(number, text) for number, _, text in marked(parsed, "row")] == [
        (0, "name | price"),
        (1, "apple | 1.5"),
        (2, "pear | 2"),
        (0, "hazel | 3"),
    ]
    assert marked(parsed, "page") == []


def test_a_pdf_keeps_its_pages_and_headings() -> None:
    parsed = read("a.pdf", files.a_pdf())
    assert parsed.title == "The manual"
    pages = marked(parsed, "page")
    assert [number for number, _, _ in pages] == [1, 2, 3]
    assert all(f"words of page {number}" in text for number, _, text in pages)
    assert [name for _, name, _ in marked(parsed, "heading")] == [
        "Chapter 1",
        "Chapter 2",
        "Chapter 3",
    ]


@pytest.mark.parametrize("title", [None, "", " "])
def test_a_file_without_a_title_has_that_of_its_first_heading(title: str | None) -> None:
    assert read("a.pdf", files.a_pdf(title=title)).title == "Chapter 1"
    assert read("a.docx", files.a_docx(title=title or "")).title == "First steps"
    assert read("a.xlsx", files.an_xlsx(title=title)).title is None


def test_a_mail_has_its_subject_its_text_and_the_names_of_what_is_attached() -> None:
    parsed = read("a.eml", files.an_eml())
    assert parsed.title == "Grüße from the team"
    assert "From: Ann <ann@example.org>" in parsed.text
    assert "The meeting is on Tuesday." in parsed.text
    assert "Attachment: plan.pdf" in parsed.text
    assert "secret" not in parsed.text


def test_the_rows_of_a_csv_are_rows_whatever_parts_its_values() -> None:
    for separator in ",;\t":
        lines = [f'name{separator}"how, much; now"', f"apple{separator}1", "", f"pear{separator}2"]
        parsed = read("a.csv", "\r\n".join(lines).encode())
        assert [text for _, _, text in marked(parsed, "row")] == [
            "name | how, much; now",
            "apple | 1",
            "pear | 2",
        ]
        assert len(marked(parsed, "table")) == 1


def test_json_is_laid_out_with_its_values_as_they_were_written() -> None:
    parsed = read("a.json", b'{"a":[1.50,{"b":"x, \\"y\\": {"}],"big":123456789012345678901}')
    assert parsed.text == (
        '{\n  "a": [\n    1.50,\n    {\n      "b": "x, \\"y\\": {"\n    }\n  ],\n'
        '  "big": 123456789012345678901\n}'
    )
    assert read("a.jsonl", b'{"a":1}\n{"a":2}\n').text.count('"a"') == 2


@pytest.mark.parametrize(
    ("name", "language"),
    [("a.py", "python"), ("a.rs", "rust"), ("b/a.TSX", "typescript"), ("Makefile", "makefile")],
)
def test_source_code_has_the_language_of_its_name(name: str, language: str) -> None:
    parsed = read(name, b"x = 1\n\ny = 2\n")
    assert parsed.outline == (Mark("code", 0, len(parsed.text), language),)


def test_the_language_of_code_in_a_document_is_kept() -> None:
    fenced = read("a.md", b"# T\n\n```Python title=x\na = 1\n```\n\n    plain\n")
    assert marked(fenced, "code") == [(0, "python", "a = 1"), (0, "", "plain")]
    page = b"<pre><code class='language-go'>a\nb</code></pre><pre>c</pre>"
    assert marked(read("a.html", page), "code") == [(0, "go", "a\nb"), (0, "", "c")]
    sphinx = b'<div class="highlight-python notranslate"><div class="highlight"><pre>a</pre>'
    assert marked(read("a.html", sphinx), "code") == [(0, "python", "a")]


# --- text in bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_in_many_encodings_is_read(encoding: str) -> None:
    text = "Die Straße führt über die Brücke, und der Müller größte höflich die Gäste."
    assert read("a.txt", text.encode(encoding)).text == text


def test_a_page_is_read_in_the_encoding_that_it_declares() -> None:
    page = '<meta charset="iso-8859-2"><p>Łódź'.encode("iso-8859-2")
    assert read("a.html", page).text == "Łódź"
    lying = '<meta charset="nonsense"><p>Łódź'.encode()
    assert read("a.html", lying).text == "Łódź"


@pytest.mark.parametrize(
    "text", ["Die Straße führt über die Brücke. ", "Привет, это текст. ", "日本語のテキストです。"]
)
def test_a_few_damaged_bytes_do_not_make_another_encoding_of_utf8(text: str) -> None:
    whole = (text * 50).encode()
    for at in (1, 700, len(whole) - 1):
        broken = whole[:at] + b"\xff" + whole[at + 1 :]
        found = read("a.txt", broken).text
        assert "\ufffd" in found
        assert found.count(text.strip()) >= 48
    declared = b"<meta charset='iso-8859-1'>" + whole[:50] + b"\xff" + whole[50:]
    assert text.strip() in read("a.html", declared).text


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("iso-8859-1", b"\x93quoted\x94 \x80", "“quoted” €"),
        ("latin1", b"\x85", "…"),
        ("us-ascii", b"\x85", "…"),
        ("iso-8859-1", b"caf\xe9 na\xefve\x81 x", "café naïve x"),
        ("windows-1252", b"\xe9t\xe9 \x9d", "été"),
        ("windows-1255", b"\xf9\xec\xe5\xed \x81", "שלום"),
        ("gb2312", "镕基".encode("gbk"), "镕基"),
        ("euc-kr", "똠방".encode("cp949"), "똠방"),
    ],
)
def test_the_label_of_an_encoding_means_the_larger_one_that_browsers_take(
    label: str, data: bytes, text: str
) -> None:
    page = f'<meta charset="{label}"><p>'.encode() + data
    assert read("a.html", page).text == text


def test_half_a_text_behind_a_byte_order_mark_is_refused() -> None:
    error = refusal("a.txt", b"\xff\xfea\x00b")
    assert (error.status, error.code) == (422, "broken_text")


# --- what a file is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.txt", b"%PDF-1.7\n", "pdf"),
        ("a.pdf", b"MZ\x90\x00", None),
        ("a.pdf", b"plain words", None),
        ("a.zip", b"PK\x03\x04 nothing known", None),
        ("README", b"words", "text"),
        ("page", b" <!DOCTYPE html><p>x", "html"),
        ("a.unknown", b"words", None),
        ("a.png", b"\x89PNG\r\n", None),
        ("d\xff/\udcffa.md", b"words", "markdown"),
    ],
)
def test_the_format_is_the_suffixs_where_the_first_bytes_agree(
    name: str, data: bytes, found: str | None
) -> None:
    assert format_of(name, data) == found


def test_a_pdf_named_txt_is_read_as_what_it_is() -> None:
    assert read("a.txt", files.a_pdf()).title == "The manual"
    assert format_of("a.bin", files.a_docx()) == "docx"


# --- bad files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "status", "code"),
    [
        ("a.pdf", b"", 422, "no_text"),
        ("a.txt", b"", 422, "no_text"),
        ("a.txt", b" \n ", 422, "no_text"),
        ("a.pdf", b"MZ" + bytes(500), 415, "unsupported_format"),
        ("a.txt", bytes(range(256)) * 20, 415, "unsupported_format"),
        ("a.pdf", b"%PDF-1.7\nnothing", 422, "broken_file"),
        ("a.pdf", lambda: files.a_pdf()[:700], 422, "broken_file"),
        ("a.pdf", lambda: files.a_pdf(password="secret"), 422, "encrypted_file"),
        ("a.docx", b"words", 415, "unsupported_format"),
        ("a.docx", lambda: files.a_docx()[:5000], 422, "broken_file"),
        ("a.eml", b"no headers at all", 422, "broken_file"),
        ("a.xyz", b"words", 415, "unsupported_format"),
        (
            "a.xlsx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            422,
            "encrypted_file",
        ),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 415, "unsupported_format"),
        (
            "a.docx",
            lambda: files.raw_docx("<w:p><w:r><w:t>" + "A" * 20_000_000 + "</w:t></w:r></w:p>"),
            422,
            "file_too_large",
        ),
        ("a.xlsx", lambda: files.sparse_xlsx(1_000_000), 422, "file_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_gets_one_clear_error(name: str, data: Data, status: int, code: str) -> None:
    error = refusal(name, made(data))
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.pdf", b"words", "is no PDF"),
        ("a.docx", lambda: files.a_docx()[:200], "is damaged or no DOCX"),
        ("a.doc", OLE + bytes(600), "is of the old binary kind: save it as DOCX"),
        ("a.xls", OLE + bytes(600), "is of the old binary kind: save it as XLSX"),
        ("a.png", b"\x89PNG\r\n", "is in no format that can be read"),
    ],
)
def test_what_a_file_was_meant_to_be_is_told(name: str, data: Data, words: str) -> None:
    error = refusal(name, made(data))
    assert (error.status, error.code) == (415, "unsupported_format")
    assert words in error.message


def test_the_words_of_a_library_are_told_once() -> None:
    message = refusal("a.pdf", b"%PDF-1.7\nnothing").message
    assert message.count("Invalid PDF") == 1


def test_a_file_that_is_not_what_it_is_said_to_be_is_refused() -> None:
    assert refusal("a.txt", b"words", "pdf").code == "unsupported_format"
    assert "DOCX" in refusal("a", files.a_docx(), "xlsx").message


def test_entities_are_not_expanded_and_nothing_is_fetched() -> None:
    laughs = "<!DOCTYPE x [<!ENTITY a0 'lol'>" + "".join(
        f"<!ENTITY a{level} '{f'&a{level - 1};' * 10}'>" for level in range(1, 10)
    )
    body = "<w:p><w:r><w:t>Hi &{};</w:t></w:r></w:p>"
    assert "lollol" not in read("a.docx", files.raw_docx(body.format("a9"), laughs + "]>")).text
    outside = "<!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
    assert "root" not in read("a.docx", files.raw_docx(body.format("x"), outside)).text


def test_a_script_in_a_pdf_is_left_alone() -> None:
    parsed = read("a.pdf", files.a_pdf(script="app.alert(1)"))
    assert "words of page 1" in parsed.text
    assert "alert" not in parsed.text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", lambda: files.raw_docx("<w:p>" * 20_000 + "<w:r><w:t>Hi</w:t></w:r>")),
        ("a.json", b"[" * 100_000 + b"1"),
        ("a.html", b"<table><tr><td>" * 30_000 + b"x"),
        ("a.md", b"> " * 50_000 + b"x"),
        ("a.md", b"- " * 50_000 + b"x"),
    ],
)
def test_deep_nesting_takes_one_pass(name: str, data: Data) -> None:
    try:
        assert len(read(name, made(data)).outline) <= 128
    except ApiError as error:
        assert error.code in ("broken_file", "no_text")  # noqa: PT017 - one of two ends
