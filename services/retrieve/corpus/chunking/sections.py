"""An outline as the chunker needs it: sections one after another, and the blocks in them."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise

from services.retrieve.corpus.chunking.counter import Span
from services.retrieve.stores.outline import Mark, MarkKind, Outline

_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with all up to the next one; headings with nothing between them begin one section.

    body: where its text begins, after the headings. level: the highest of the headings' (1 is the
    highest), 0 for what stands before the first heading. path: the headings that its text stands
    under, outermost first, its own among them.
    """

    start: int
    body: int
    end: int
    level: int
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Code or a table. borders: where its rows begin, none in code."""

    start: int
    end: int
    mark: Mark
    rows: tuple[Mark, ...] = ()


def sections(text: str, outline: Outline) -> list[Section]:
    """The sections of a text, in order and without a hole between them."""
    found: list[Section] = []
    start, body, level = 0, 0, 0
    path: list[tuple[int, str]] = []
    names: tuple[str, ...] = ()
    for mark in marks(text, outline, "heading"):
        own = min(max(mark.number, 1), _LEVELS)
        follows = text[body : mark.start].isspace() or body == mark.start
        if follows and level:
            level = min(level, own)
        else:
            if not follows:
                found.append(Section(start, body, mark.start, level, names))
                start = mark.start
            level = own
        while path and path[-1][0] >= own:
            path.pop()
        path.append((own, " ".join(mark.name.split())))
        body, names = mark.end, tuple(name for _, name in path if name)
    return [*found, Section(start, body, len(text), level, names)]


def blocks(text: str, outline: Outline) -> list[Block]:
    """The blocks of code and tables, in order; none is in another."""
    rows = marks(text, outline, "row")
    starts = [row.start for row in rows]
    found = []
    for mark in marks(text, outline, "code", "table"):
        own: tuple[Mark, ...] = ()
        if mark.kind == "table":
            inner = rows[bisect_left(starts, mark.start) : bisect_left(starts, mark.end)]
            own = tuple(row for row in inner if row.end <= mark.end)
        found.append(Block(mark.start, mark.end, mark, own))
    return found


def marks(text: str, outline: Outline, *kinds: MarkKind) -> list[Mark]:
    """The marks of some kinds, by place: none is empty, reaches over the text, or begins in one
    before it."""
    found: list[Mark] = []
    for mark in sorted(
        (one for one in outline if one.kind in kinds), key=lambda one: (one.start, -one.end)
    ):
        sound = 0 <= mark.start < mark.end <= len(text)
        if sound and (not found or mark.start >= found[-1].end):
            found.append(mark)
    return found


def between(spans: list[Block], start: int, end: int) -> list[Block]:
    """Of blocks in order, those that lie between two places as a whole."""
    first = bisect_left(spans, start, key=lambda one: one.start)
    last = bisect_right(spans, end, key=lambda one: one.end)
    return spans[first:last]


def parted(start: int, end: int, borders: list[int]) -> list[Span]:
    """The spans from `start` to `end` that ascending borders part it into, empty ones left out."""
    places = [start, *(one for one in borders if start < one < end), end]
    return [(a, b) for a, b in pairwise(places) if a < b]
