"""Readable text and its outline, put together from pieces and the gaps between them."""

from dataclasses import dataclass

from services.retrieve.stores.outline import Mark, MarkKind

# Parts that lie in one another: no honest document goes deeper, and what is open is looked through
# for each tag of a hostile one.
_DEEPEST = 64


@dataclass(slots=True)
class _Open:
    """A part whose text has not begun yet while `start` is negative."""

    kind: MarkKind
    name: str
    number: int
    start: int = -1
    rows: int = 0


class Layout:
    """Gathers text. A gap is a wish for *at least* so many line feeds before the next text: wishes
    do not add up, so that the widest gaps are those before headings, where chunks are best cut.

    A part that is opened begins with the next text, and what is open lies around what is opened
    after it.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._gap = 0
        self._mark = ""
        self._open: list[_Open] = []
        self._pending = 0  # how many of the open parts, the last ones, have no text yet
        self._marks: list[Mark] = []

    def gap(self, lines: int) -> None:
        """Ask for at least `lines` line feeds before the next text."""
        if lines > self._gap:
            self._gap = lines

    def mark(self, mark: str) -> None:
        """Put `mark` directly before the next text, after the gap: the sign of a list's item."""
        self._mark = mark

    def cell(self) -> None:
        """Part the next text from the text before it, unless it begins a row."""
        if not self._gap:
            self._add(" | ")

    def text(self, data: str, *, verbatim: bool = False) -> None:
        """Add text; white space at the beginning of a line is dropped unless it is `verbatim`."""
        if self._gap or self._mark:
            data = data.strip("\n") if verbatim else data.lstrip()
            if not data:
                return
            before = self._length + self._gap
            self._add("\n" * self._gap + self._mark)
            self._gap, self._mark = 0, ""
            if self._pending:
                self._begin(before)
        elif self._pending and data:
            self._begin(self._length)
        self._add(data)

    def open(self, kind: MarkKind, name: str = "", number: int = 0) -> None:
        """Begin a part of the document with the next text; one that would lie too deep in others
        is none."""
        if len(self._open) == _DEEPEST:
            return
        self._open.append(_Open(kind, name, number))
        self._pending += 1

    def name(self, name: str) -> None:
        """Name the innermost open part, unless it has a name."""
        if self._open and not self._open[-1].name:
            self._open[-1].name = name

    def close(self, kind: MarkKind) -> None:
        """End the innermost part of this kind, and whatever is open in it; a part without text
        leaves no mark, and where none is open nothing happens."""
        if not any(part.kind == kind for part in self._open):
            return
        while self._open:
            part = self._open.pop()
            if part.start < 0:
                self._pending -= 1
            else:
                self._marks.append(
                    Mark(part.kind, part.start, self._length, part.name, part.number)
                )
            if part.kind == kind:
                return

    def row(self) -> None:
        """Begin a row of the innermost open table; outside of one it is a line like any other."""
        self.gap(1)
        for place in range(len(self._open) - 1, -1, -1):
            table = self._open[place]
            if table.kind == "table":
                if place + 1 < len(self._open):
                    self.close(self._open[place + 1].kind)
                self.open("row", number=table.rows)
                table.rows += 1
                return

    @property
    def depth(self) -> int:
        """How many parts are open."""
        return len(self._open)

    def close_to(self, depth: int) -> None:
        """End the innermost parts until `depth` are open."""
        while len(self._open) > depth:
            self.close(self._open[-1].kind)

    def position(self) -> int:
        """Where the next text goes, for `since`."""
        return len(self._parts)

    def since(self, position: int) -> str:
        """The text added since `position`."""
        return "".join(self._parts[position:]).strip()

    def result(self) -> tuple[str, list[Mark]]:
        """All of it, and the marks of the parts, in no order. Whatever is open ends here."""
        self.close_to(0)
        return "".join(self._parts), self._marks

    def _add(self, data: str) -> None:
        self._parts.append(data)
        self._length += len(data)

    def _begin(self, before: int) -> None:
        for part in self._open[-self._pending :]:
            # The sign of a list's item is no word of a heading in it.
            part.start = self._length if part.kind == "heading" else before
        self._pending = 0
