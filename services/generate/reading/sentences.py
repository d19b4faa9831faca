"""Splits a passage or a draft into its sentences. Pure functions.

Rules rather than a model: what passages of a knowledge base hold beside prose (headings, lists,
tables, code) is what sentence models are not made for. Every sentence keeps its offsets, so that
it can be quoted verbatim.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a sentence is in the layout of its text."""

    PROSE = "prose"
    ITEM = "item"
    HEADING = "heading"
    CODE = "code"
    ROW = "row"


@dataclass(frozen=True)
class Sentence:
    """One sentence, list item, heading, table row or code block.

    start, end: character offsets in the text it was taken from; text is exactly that slice.
    heading: the text of the heading it stands under, "" if there is none.
    """

    start: int
    end: int
    text: str
    kind: Kind
    heading: str = ""

    @property
    def whole(self) -> bool:
        """Whether it ends as a statement does; titles, questions, table rows and code do not."""
        return self.kind in (Kind.PROSE, Kind.ITEM) and _CLOSED.search(self.text) is not None


# A full stop after these ends no sentence. Those in _BEFORE_NAMES never do, even before a capital.
_SHORT = """al approx art bros ca cf ch chap co corp dept ed eds eg equiv esp est etc ext fig figs
    ft gen hon hr ie inc jan feb mar apr jun jul aug sep sept oct nov dec jr lb ltd max min misc mt
    no nos nr op oz p pp para par pl pres prof resp rev sec sgt sr sq st ste tel u.s u.k u.n e.g i.e
    a.m p.m d.c ph.d vol vols vs viz b.c a.d"""
_ABBREVIATIONS = frozenset(_SHORT.split())
_TITLES = (
    "mr mrs ms dr prof gen col capt lt sgt rev hon st mt pres sen rep gov fig no vs e.g i.e cf"
)
_BEFORE_NAMES = frozenset(_TITLES.split())
_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s")
_ITEM = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+(?=\S)")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_CELLS = re.compile(r"\S \| ")
_RULE = re.compile(r"^[\s|:*_=-]*$")
# A sentence's end: its mark, closing quotes or brackets, the citations that follow it, then space.
_END = re.compile(
    r"(?<![.!?\u2026])(?P<mark>[.!?\u2026]+)[\"'\u201d\u2019)\]]*(?:\s?\[\d{1,3}(?:\s*[,;]\s*\d{1,3})*\])*(?=\s|$)"
)
_CLOSED = re.compile(r"[.!\u2026\u3002\uff01][\"'\u201d\u2019)\]]*$")
_LAST_WORD = re.compile(r"[^\s(\[\"'\u201c]+$")
_LONGEST_WORD = 40  # characters before a mark that are looked at
_OPENS = re.compile(r"\s+[\"'\u201c\u2018(\[]*(?P<first>\S)")


def split(text: str) -> list[Sentence]:
    """The sentences of a text in order. Blank lines, rules and empty cells are in none of them."""
    heading = ""
    found: list[Sentence] = []
    for kind, start, end in _blocks(text):
        if kind is Kind.HEADING:
            heading = text[start:end].strip().strip("#").strip()
        pieces = _prose(text, start, end) if kind in (Kind.PROSE, Kind.ITEM) else [(start, end)]
        for first, last in pieces:
            piece = _trimmed(text, first, last)
            if piece is not None:
                above = "" if kind is Kind.HEADING else heading
                found.append(Sentence(*piece, text[slice(*piece)], kind, above))
    return found


def _blocks(text: str) -> Iterator[tuple[Kind, int, int]]:
    """Runs of lines that belong together, as (kind, start, end)."""
    lines = list(re.finditer(r"[^\n]*\n|[^\n]+$", text))
    place = 0
    while place < len(lines):
        line = lines[place].group()
        start, end = lines[place].span()
        place += 1
        if _FENCE.match(line):
            while place < len(lines):
                end = lines[place].end()
                place += 1
                if _FENCE.match(lines[place - 1].group()):
                    break
            yield Kind.CODE, start, end
        elif _RULE.match(line):
            continue
        elif _HEADING.match(line):
            yield Kind.HEADING, start, end
        elif _is_row(lines, place - 1):
            yield Kind.ROW, start, end
        else:
            kind = Kind.ITEM if _ITEM.match(line) else Kind.PROSE
            while place < len(lines) and not _starts_block(lines, place):
                end = lines[place].end()
                place += 1
            yield kind, start, end


def _starts_block(lines: Sequence[re.Match[str]], place: int) -> bool:
    line = lines[place].group()
    if any(pattern.match(line) for pattern in (_FENCE, _RULE, _HEADING, _ITEM)):
        return True
    return _is_row(lines, place)


def _is_row(lines: Sequence[re.Match[str]], place: int) -> bool:
    """Whether a line is a table's: framed by bars, or parted by them as a line beside it is.

    The desk's texts have no frames; a lone bar may be anything, such as a pipe in a command.
    """
    if _ROW.match(lines[place].group()):
        return True
    beside = lines[max(0, place - 1) : place + 2]
    return _CELLS.search(lines[place].group()) is not None and (
        sum(_CELLS.search(line.group()) is not None for line in beside) > 1
    )


def _prose(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Sentence ranges of a paragraph or list item."""
    mark = _ITEM.match(text[start:end])
    begin = start + mark.end() if mark else start
    for match in _END.finditer(text, begin, end):
        before = text[max(begin, match.start() - _LONGEST_WORD) : match.start()]
        if _ends(before, match["mark"], _OPENS.match(text, match.end(), end)):
            yield begin, match.end()
            begin = match.end()
    yield begin, end


def _ends(before: str, mark: str, follows: re.Match[str] | None) -> bool:
    """Whether a mark ends a sentence, given what stands before it and what opens after it."""
    if follows is None:  # the paragraph ends here
        return True
    last = _LAST_WORD.search(before)
    written = last.group() if last else ""
    word = written.lower()
    if follows["first"].islower() and not _may_end_before_lower_case(written):
        return False
    if mark != ".":
        return True
    if len(word) == 1 and word.isalpha():  # an initial: J. R. R. Tolkien
        return False
    if word in _BEFORE_NAMES:
        return False
    # "at 5 p.m. The" ends, "the U.S. Senate" does not: one cannot know; the longer one is safe.
    return word not in _ABBREVIATIONS


def _may_end_before_lower_case(word: str) -> bool:
    """Names of programs begin sentences in lower case; unknown abbreviations are short or names."""
    return word[:1].isdigit() or (len(word) > 3 and word.isalpha() and word.islower())


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    stripped = piece.strip()
    if not any(character.isalnum() for character in stripped):
        return None
    return start + left, start + left + len(stripped)
