"""The structure of a document beside its text: headings, pages, code, tables.

A document's outline is what its parser found; a chunk's place is what of it the chunk lies in, so
that a citation can name the heading and the page, and not only two offsets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Literal

MarkKind = Literal["heading", "page", "code", "table", "row"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of a document: the characters from `start` to `end` of its parsed text.

    kind: `heading` is the line of a heading itself (name: its words, number: its level, 1 to 6),
    `page` a page or slide (number: counted from 1), `code` a block of code (name: its language, if
    known), `table` a whole table, `row` a row of one (number: its place in the table, 0 the first;
    the header is one).
    """

    kind: MarkKind
    start: int
    end: int
    name: str = ""
    number: int = 0


Outline = tuple[Mark, ...]  # by ascending start, an outer mark before those in it


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its document a chunk lies.

    headings: those it stands under, outermost first. pages: the first and the last that it touches.
    code: the language of the code that it lies in as a whole. rows: the first and the last row of
    the table that it lies in as a whole. bytes: where it begins and ends in the document's parsed
    text as UTF-8.
    """

    headings: tuple[str, ...] = ()
    pages: tuple[int, int] | None = None
    code: str | None = None
    rows: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None


NOWHERE = Place()


def joined(places: Sequence[Place]) -> Place:
    """The place of several chunks of a document that follow each other, at least one.

    What holds for some of them only is left out: of headings those that all of them stand under.
    """
    first, last = places[0], places[-1]
    if len(places) == 1:
        return first
    columns = zip(*(one.headings for one in places), strict=False)  # as deep as the shallowest
    headings = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, columns)]
    pages = [one.pages for one in places if one.pages is not None]
    rows = [one.rows for one in places if one.rows is not None]
    one_table = len(rows) == len(places) and all(
        before[1] <= after[0] <= before[1] + 1 for before, after in pairwise(rows)
    )
    return Place(
        headings=tuple(headings),
        pages=(min(one[0] for one in pages), max(one[1] for one in pages)) if pages else None,
        code=first.code if all(one.code == first.code for one in places) else None,
        rows=(rows[0][0], rows[-1][1]) if one_table else None,
        bytes=(first.bytes[0], last.bytes[1]) if first.bytes and last.bytes else None,
    )
