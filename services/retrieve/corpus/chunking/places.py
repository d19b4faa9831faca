"""Where in its document each chunk lies."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from services.retrieve.corpus.chunking.counter import Span
from services.retrieve.corpus.chunking.sections import Block, blocks, marks, sections
from services.retrieve.stores.outline import Outline, Place


def places(text: str, outline: Outline, spans: Sequence[Span]) -> list[Place]:
    """The place of each span of `text`; in time linear in the text, the outline and the spans."""
    parts = sections(text, outline)
    starts = [one.start for one in parts]
    inner = blocks(text, outline)
    pages = marks(text, outline, "page")
    in_bytes = _in_bytes(text, spans)
    found = []
    for start, end in spans:
        # A chunk that begins with a heading stands under it; so does all up to the next section.
        first = bisect_right(starts, start) - 1
        last = bisect_left(starts, end) - 1
        path = parts[first].path
        for one in parts[first + 1 : last + 1]:
            path = _common(path, one.path)
        block = _around(inner, start, end)
        from_page = bisect_right(pages, start, key=lambda one: one.end)
        to_page = bisect_left(pages, end, key=lambda one: one.start) - 1
        found.append(
            Place(
                headings=path,
                pages=(pages[from_page].number, pages[to_page].number)
                if from_page <= to_page
                else None,
                code=block.mark.name if block and block.mark.kind == "code" else None,
                rows=_rows(block, start, end) if block else None,
                bytes=(in_bytes[start], in_bytes[end]),
            )
        )
    return found


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]


def _around(found: Sequence[Block], start: int, end: int) -> Block | None:
    place = bisect_right(found, start, key=lambda one: one.start) - 1
    return found[place] if place >= 0 and found[place].end >= end else None


def _rows(block: Block, start: int, end: int) -> tuple[int, int] | None:
    first = bisect_right(block.rows, start, key=lambda one: one.end)
    last = bisect_left(block.rows, end, key=lambda one: one.start) - 1
    return (block.rows[first].number, block.rows[last].number) if first <= last else None


def _in_bytes(text: str, spans: Sequence[Span]) -> dict[int, int]:
    """Offsets in UTF-8 of the places where spans begin and end."""
    borders = sorted({0, *(border for span in spans for border in span)})
    if text.isascii():
        return {border: border for border in borders}
    found, count = {0: 0}, 0
    for a, b in pairwise(borders):
        # A half of a character, which a parser refuses, is counted as what would stand for it.
        count += len(text[a:b].encode("utf-8", "replace"))
        found[b] = count
    return found
