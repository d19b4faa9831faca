"""One kind of line end, two kinds of white space, no control characters; marks follow their text.

Every step replaces some spans of the text by shorter or longer ones; the borders of the marks are
moved by the same edits, so that they lie around the same words before and after.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from services.retrieve.stores.outline import Mark, Outline

# All the other ways to end a line or a page, and to leave a space, made one: so few kinds of white
# space are left that the chunker can look for the widest gap without going round in circles.
LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_TABS = re.compile("\t")
_SPACES = re.compile("[\x1c-\x1f\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_LINE_TAIL = re.compile(r"(?<! ) +$", re.MULTILINE)  # from a run's first space on: linear
_WIDE_SPACE = re.compile(r" {41,}")
_WIDE_GAP = re.compile(r"\n{4,}")
# Putting a run of marks into its canonical order takes quadratic time. No letter of any language
# has 30 of them (Unicode Standard Annex 15, stream-safe text).
_COMBINING = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x20000))))
_TOO_MANY_MARKS = re.compile(f"[{_COMBINING}]{{30}}([{_COMBINING}]+)")
_MAYBE_MARKS = re.compile("[\u0300-\U0001ffff]{31}")  # a quick look first
# Most texts have none of these: looking for all of them at once spares a search for each.
_UNTIDY = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
)
_CHARACTERS = ((LINE_ENDS, "\n"), (_TABS, "    "), (_SPACES, " "), (_CONTROLS, ""))
# With what is in every text where the pattern matches: the pattern is the slower search.
_WIDTHS = (
    (" \n", _LINE_TAIL, ""),
    (" " * 41, _WIDE_SPACE, " " * 40),
    ("\n" * 4, _WIDE_GAP, "\n\n\n"),
)
_LONGEST_HEADING = 500  # characters; what is longer is text that someone has set as a heading
_OUTER_FIRST = {"page": 0, "table": 1, "row": 2, "code": 3, "heading": 4}


def tidy(text: str, marks: Sequence[Mark] = ()) -> tuple[str, Outline]:
    """The tidied text, with at most 30 marks on a letter, and the outline that refers to it.

    A mark has no white space at its ends; one that holds nothing any more is left out. The name of
    a heading is its words as they are in the text.
    """
    borders = sorted({border for mark in marks for border in (mark.start, mark.end)})
    moved = list(borders)
    if not text.isascii():
        if _MAYBE_MARKS.search(text):
            text, moved = _replaced(text, _TOO_MANY_MARKS, "", moved)
        text, moved = _composed(text, moved)
    if _UNTIDY.search(text):
        for pattern, by in _CHARACTERS:
            text, moved = _replaced(text, pattern, by, moved)
    for sign, pattern, by in _WIDTHS:
        if sign in text:
            text, moved = _replaced(text, pattern, by, moved)
    begin = len(text) - len(text.lstrip())
    text = text.strip()
    moved = [min(max(0, border - begin), len(text)) for border in moved]
    place = dict(zip(borders, moved, strict=True))
    return text, _outline(text, [(mark, place[mark.start], place[mark.end]) for mark in marks])


def tidy_line(text: str) -> str:
    """The text tidied and on one line."""
    return " ".join(tidy(text)[0].split())


def _replaced(
    text: str, pattern: re.Pattern[str], by: str, borders: list[int]
) -> tuple[str, list[int]]:
    """Each match, or its group where the pattern has one, replaced."""
    found = [match.span(pattern.groups) for match in pattern.finditer(text)]
    if not found:
        return text, borders
    pieces = []
    at = 0
    for start, end in found:
        pieces.append(text[at:start])
        at = end
    pieces.append(text[at:])
    edits = ((start, end, len(by)) for start, end in found)
    return by.join(pieces), _moved(borders, edits) if borders else borders


def _moved(borders: Sequence[int], edits: Iterable[tuple[int, int, int]]) -> list[int]:
    """Where the borders are after edits (start, end, new length), all in ascending order."""
    ends: list[int] = [0]
    shifts: list[int] = [0]  # what all edits up to the one that ends there have added
    starts: list[tuple[int, int]] = [(0, 0)]
    for start, end, length in edits:
        ends.append(end)
        starts.append((start, length))
        shifts.append(shifts[-1] + length - (end - start))
    begins = [start for start, _ in starts]
    moved = []
    for border in borders:
        last = bisect_right(begins, border) - 1
        start, length = starts[last]
        if last and border < ends[last]:  # within the edit
            moved.append(start + shifts[last - 1] + min(border - start, length))
        else:
            moved.append(border + shifts[last])
    return moved


def _composed(text: str, borders: list[int]) -> tuple[str, list[int]]:
    """The text in normal form C."""
    if unicodedata.is_normalized("NFC", text):
        return text, borders
    if not borders:
        return unicodedata.normalize("NFC", text), borders
    # Composed piece by piece between the borders, each border being moved to where a letter begins.
    cuts: list[int] = []
    for border in borders:
        cut = max(border, cuts[-1] if cuts else 0)
        while cut < len(text) and _continues(text[cut]):
            cut += 1
        cuts.append(cut)
    pieces = [
        unicodedata.normalize("NFC", text[start:end])
        for start, end in pairwise([0, *cuts, len(text)])
    ]
    moved, length = [], 0
    for piece in pieces[:-1]:
        length += len(piece)
        moved.append(length)
    return "".join(pieces), moved


def _continues(character: str) -> bool:
    """Whether a character may become one with what is before it."""
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character)[0] == "M"


def _outline(text: str, placed: Iterable[tuple[Mark, int, int]]) -> Outline:
    kept = []
    for mark, start, end in placed:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        name = mark.name
        if mark.kind == "heading":
            if end - start > _LONGEST_HEADING:
                continue
            name = " ".join(text[start:end].split())
        if start < end:
            kept.append(Mark(mark.kind, start, end, name, mark.number))
    return tuple(sorted(kept, key=lambda mark: (mark.start, -mark.end, _OUTER_FIRST[mark.kind])))
