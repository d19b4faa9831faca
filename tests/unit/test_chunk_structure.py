"""Chunks follow a document's structure, and know their place in it."""

from itertools import pairwise
from pathlib import Path

import pytest

from services.retrieve.corpus.chunk import TokenCounter, chunk
from services.retrieve.stores.base import NewChunk
from services.retrieve.stores.outline import Mark, Outline


@pytest.fixture(scope="session")
def bert(minilm_dir: Path) -> TokenCounter:
    """The default model's own tokenizer."""
    return TokenCounter((minilm_dir / "tokenizer.json").read_bytes())


def outlined(*parts: tuple[str, str, int]) -> tuple[str, Outline]:
    """A text and its outline, of (kind, text, level or number); `row`s in a row are a table."""
    text, marks = "", list[Mark]()
    for kind, words, number in parts:
        start = len(text) + (2 if text else 0)
        text += f"\n\n{words}" if text else words
        if kind == "table":
            marks.append(Mark("table", start, len(text)))
            at = start
            for place, row in enumerate(words.split("\n")):
                marks.append(Mark("row", at, at + len(row), "", place))
                at += len(row) + 1
        elif kind == "code":
            marks.append(Mark("code", start, len(text), "python"))
        elif kind == "heading":
            marks.append(Mark("heading", start, len(text), words, number))
    return text, tuple(marks)


def words(count: int, word: str = "word") -> str:
    """So many tokens of prose, in sentences of ten."""
    return " ".join(f"{word.capitalize()} {'word ' * 7}end." for _ in range(count // 10))


def cut(text: str, outline: Outline, counter: TokenCounter, overlap: int = 0) -> list[NewChunk]:
    """Chunks of 64 tokens, two of which are special ones."""
    return chunk(text, None, outline, counter, 64, overlap, "structure-1")


def test_sections_that_fit_together_stay_together_and_others_are_apart(bert: TokenCounter) -> None:
    text, outline = outlined(
        ("heading", "Top", 1),
        ("prose", words(20), 0),
        ("heading", "First", 2),
        ("prose", words(20), 0),
        ("heading", "Second", 2),
        ("prose", words(50), 0),
        ("heading", "Other", 1),
        ("prose", words(30), 0),
    )
    chunks = cut(text, outline, bert)
    assert [one.text.split("\n")[0] for one in chunks] == ["Top", "Second", "Other"]
    paths = [one.place.headings for one in chunks]
    assert paths == [("Top",), ("Top", "Second"), ("Other",)]


def test_a_heading_is_never_the_end_of_a_chunk(bert: TokenCounter) -> None:
    for before in range(0, 60, 10):
        text, outline = outlined(
            ("prose", words(before + 10), 0),
            ("heading", "Part one", 1),
            ("heading", "Chapter", 2),
            ("prose", words(90), 0),
            ("heading", "Last", 2),
            ("code", "\n".join(f"call({n})" for n in range(40)), 0),
        )
        for one in cut(text, outline, bert, overlap=16):
            assert not one.text.endswith(("Part one", "Chapter", "Last"))
            assert "Part one" not in one.text or "Part one\n\nChapter\n\nWord" in one.text


def test_code_is_cut_between_its_lines_and_keeps_its_language(bert: TokenCounter) -> None:
    lines = [f"    call(argument_{n}, {n})" for n in range(30)]
    text, outline = outlined(("prose", words(20), 0), ("code", "\n".join(lines), 0))
    found = [one for one in cut(text, outline, bert) if one.place.code is not None]
    assert len(found) > 2
    assert {one.place.code for one in found} == {"python"}
    whole = {line.strip() for line in lines}
    assert all(line.strip() in whole for one in found for line in one.text.split("\n"))


def test_a_table_is_cut_between_its_rows_but_for_one_that_is_too_long(bert: TokenCounter) -> None:
    rows = [f"| row {n} | some value {n} |" for n in range(12)]
    rows[7] = f"| {words(100)} |"
    text, outline = outlined(("table", "\n".join(rows), 0), ("prose", words(20), 0))
    found = cut(text, outline, bert)
    for one in found[:-1]:
        first, last = one.place.rows or (-1, -1)
        assert first >= 0
        if not first <= 7 <= last:
            assert one.text == "\n".join(rows[first : last + 1])
    assert found[-1].place.rows is None


def test_only_prose_shares_words_with_the_chunk_before_it(bert: TokenCounter) -> None:
    text, outline = outlined(
        ("heading", "One", 1),
        ("prose", words(150), 0),
        ("heading", "Two", 1),
        ("table", "\n".join(f"| row {n} | some value |" for n in range(20)), 0),
    )
    chunks = cut(text, outline, bert, overlap=16)
    shared = [after.start < before.end for before, after in pairwise(chunks)]
    second = next(place for place, one in enumerate(chunks) if one.text.startswith("Two"))
    assert all(shared[: second - 1])
    assert not any(shared[second - 1 :])


def test_a_place_has_pages_and_bytes(bert: TokenCounter) -> None:
    pages = ["Größe. " + words(30), words(30), words(30)]
    text = "\n\n".join(pages)
    second = len(pages[0]) + 2
    third = second + len(pages[1]) + 2
    outline = (
        Mark("page", 0, second, "", 1),
        Mark("page", second, third, "", 2),
        Mark("page", third, len(text), "", 3),
    )
    chunks = cut(text, outline, bert)
    for one in chunks:
        touched = [mark.number for mark in outline if mark.start < one.end and one.start < mark.end]
        assert one.place.pages == (touched[0], touched[-1])
        start, end = one.place.bytes or (0, 0)
        assert text.encode()[start:end] == one.text.encode()
    assert chunks[-1].place.bytes == (len(text[: chunks[-1].start].encode()), len(text.encode()))


def test_a_hostile_outline_costs_no_more_than_its_size(bert: TokenCounter) -> None:
    headings = tuple(Mark("heading", n, n + 1, "a" * 50, n % 9) for n in range(0, 20_000, 2))
    text = "a " * 10_000
    chunks = cut(text, headings, bert)
    assert "".join(one.text for one in chunks).replace(" ", "") == "a" * 10_000
