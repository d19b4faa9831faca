"""Cuts a document along its structure: sections, blocks of code, tables; prose by semchunk.

What fits is never cut. A part that does not fit is cut at its highest headings, and neighbours of
one level that fit together stay together. A section without headings in it is cut between its
blocks; prose that is too long at paragraphs and sentences, code at blank lines or lines, a table
between its rows. A heading goes with what follows it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from services.retrieve.corpus.chunking.counter import Span, TokenCounter, floor_of
from services.retrieve.corpus.chunking.prose import overlapped, pieces, stripped
from services.retrieve.corpus.chunking.sections import (
    Block,
    between,
    blocks,
    parted,
    sections,
)
from services.retrieve.stores.outline import Outline

# A part of less than a quarter of a chunk is joined with a chunk beside it where both fit.
_SMALL = 4

_BLANK_LINE = re.compile(r"\n[ \n]*\n")
_LINE = re.compile(r"\n")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that is not cut any more, and what it costs.

    begins, ends: whether it does so with prose. block: where the code or table begins that it was
    cut from, -1 if it is no piece of one; such pieces are joined with their like alone.
    """

    start: int
    end: int
    cost: int
    begins: bool = False
    ends: bool = False
    block: int = -1


def cut_structure(
    text: str, outline: Outline, counter: TokenCounter, room: int, overlap: int
) -> list[Span]:
    """Spans that cover `text` but for white space, in order.

    room: the most tokens of a span, overlap: of those that two neighbours share. They are counted
    word by word: with a tokenizer that looks beyond a space, a span may come out longer.
    """
    return _Cutter(text, outline, counter, room, overlap).cut()


class _Cutter:
    def __init__(
        self,
        text: str,
        outline: Outline,
        counter: TokenCounter,
        room: int,
        overlap: int,
    ) -> None:
        self._text, self._counter = text, counter
        self._room, self._overlap = room, overlap
        self._sections = sections(text, outline)
        self._blocks = blocks(text, outline)
        costs = (counter.count_by_words(text[one.start : one.end]) for one in self._sections)
        self._costs = list(accumulate(costs, initial=0))

    def cut(self) -> list[Span]:
        return self._cut(0, len(self._sections))

    def _cut(self, first: int, last: int) -> list[Span]:
        """The sections from `first` to before `last`, as few chunks as they need."""
        start, end = self._sections[first].start, self._sections[last - 1].end
        if self._fits(first, last):
            start, end = stripped(self._text, start, end)
            return [(start, end)] if start < end else []
        if last - first == 1:
            return self._section(first)
        inner = range(first + 1, last)
        top = min(self._sections[one].level for one in inner)
        cuts = [first, *(one for one in inner if self._sections[one].level == top), last]
        groups: list[Span] = []  # of sections
        for a, b in pairwise(cuts):
            if groups and self._fits(groups[-1][0], b):
                groups[-1] = (groups[-1][0], b)
            else:
                groups.append((a, b))
        return self._neighbours(self._cut(a, b) for a, b in groups)

    def _fits(self, first: int, last: int) -> bool:
        length = self._sections[last - 1].end - self._sections[first].start
        cost = self._costs[last] - self._costs[first]
        return max(cost, floor_of(length)) <= self._room

    def _neighbours(self, groups: Iterable[list[Span]]) -> list[Span]:
        """All spans in order; a group that is one small span is joined with a span beside it."""
        found: list[Span] = []
        waits = False  # whether the last one is small
        for spans in groups:
            if not spans:
                continue
            small = len(spans) == 1 and self._cost(*spans[0]) * _SMALL < self._room
            if found and (small or waits) and self._cost(found[-1][0], spans[0][1]) <= self._room:
                found[-1] = (found[-1][0], spans[0][1])
                found += spans[1:]
                waits = False
            else:
                found += spans
                waits = small
        return found

    def _section(self, place: int) -> list[Span]:
        """One section that does not fit, cut between and in its blocks."""
        section = self._sections[place]
        most = self._room - self._overlap
        start, body = section.start, section.body
        heading = self._cost(start, body)
        if heading * 2 > most:  # no heading, whatever it is called
            heading, body = 0, start
        units: list[_Unit] = []
        at = body
        for block in between(self._blocks, body, section.end):
            units += self._prose(at, block.start, most)
            units += self._block(block, most)
            at = block.end
        units += self._prose(at, section.end, most)
        if heading and units:
            units = self._headed(start, heading, units, most)
        return self._joined(units)

    def _headed(self, start: int, heading: int, units: list[_Unit], most: int) -> list[_Unit]:
        """The units, the first with the heading at `start` before it."""
        first, others = units[0], units[1:]
        if first.cost + heading > most:
            half = min(most - heading, -(-first.cost // 2) + heading)
            cut = self._pieces(first, half)
            first, others = cut[0], cut[1:] + others
        return [replace(first, start=start, cost=first.cost + heading, begins=False), *others]

    def _prose(self, start: int, end: int, most: int) -> list[_Unit]:
        start, end = stripped(self._text, start, end)
        if start >= end:
            return []
        whole = _Unit(start, end, self._cost(start, end), begins=True, ends=True)
        return [whole] if whole.cost <= most else self._pieces(whole, most)

    def _block(self, block: Block, most: int) -> list[_Unit]:
        start, end = stripped(self._text, block.start, block.end)
        if start >= end:
            return []
        whole = _Unit(start, end, self._cost(start, end))
        if whole.cost <= most:
            return [whole]
        goal = -(-whole.cost // -(-whole.cost // most))  # pieces of like sizes, no short rest
        if block.rows:
            rows = parted(start, end, [row.start for row in block.rows])
            return self._packed(rows, goal, most, start)
        found: list[_Unit] = []
        for a, b in parted(start, end, self._breaks(_BLANK_LINE, start, end)):
            lines = parted(a, b, self._breaks(_LINE, a, b)) if self._cost(a, b) > most else [(a, b)]
            found += self._packed(lines, goal, most, start)
        return found

    def _breaks(self, pattern: re.Pattern[str], start: int, end: int) -> list[int]:
        return [one.end() for one in pattern.finditer(self._text, start, end)]

    def _packed(self, spans: Iterable[Span], goal: int, most: int, block: int) -> list[_Unit]:
        """Rows or lines, together as far as they cost about `goal`."""
        found: list[_Unit] = []
        for a, b in spans:
            start, end = stripped(self._text, a, b)
            if start >= end:
                continue
            unit = _Unit(start, end, self._cost(start, end), block=block)
            if unit.cost > most:
                found += self._pieces(unit, most)
            elif found and found[-1].cost < goal and self._sum(found[-1], unit) <= most:
                found[-1] = self._together(found[-1], unit)
            else:
                found.append(unit)
        return found

    def _pieces(self, unit: _Unit, most: int) -> list[_Unit]:
        part = self._text[unit.start : unit.end]
        return [
            replace(unit, start=unit.start + a, end=unit.start + b, cost=self._measure(part[a:b]))
            for a, b in pieces(part, self._measure, most)
        ]

    def _joined(self, units: Sequence[_Unit]) -> list[Span]:
        """Units together as far as they fit, prose with an overlap."""
        found: list[_Unit] = []
        for place, unit in enumerate(units):
            # Only the last chunk may use the room that is kept for a neighbour's overlap.
            most = self._room - (self._overlap if place < len(units) - 1 else 0)
            if found and found[-1].block == unit.block and self._sum(found[-1], unit) <= most:
                found[-1] = self._together(found[-1], unit)
            else:
                found.append(unit)
        spans = [(one.start, one.end) for one in found]
        for place, (before, after) in enumerate(pairwise(found), start=1):
            if self._overlap and before.ends and after.begins:
                start = overlapped(
                    self._text,
                    (before.start, before.end),
                    spans[place],
                    self._measure,
                    self._room,
                    self._overlap,
                    self._counter,
                )
                spans[place] = start, after.end
        return spans

    def _together(self, first: _Unit, second: _Unit) -> _Unit:
        cost = self._sum(first, second)
        return replace(first, end=second.end, cost=cost, ends=second.ends)

    def _sum(self, first: _Unit, second: _Unit) -> int:
        return max(first.cost + second.cost, floor_of(second.end - first.start))

    def _cost(self, start: int, end: int) -> int:
        return self._measure(self._text[start:end])

    def _measure(self, part: str) -> int:
        return self._counter.count_by_words(part)
