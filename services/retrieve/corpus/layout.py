"""Readable text, put together from pieces and the gaps between them."""


class Layout:
    """Gathers text. A gap is a wish for *at least* so many line feeds before the next text: wishes
    do not add up, so that the widest gaps are those before headings, where chunks are best cut."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._gap = 0
        self._mark = ""

    def gap(self, lines: int) -> None:
        """Ask for at least `lines` line feeds before the next text."""
        self._gap = max(self._gap, lines)

    def mark(self, mark: str) -> None:
        """Put `mark` directly before the next text, after the gap: the sign of a list's item."""
        self._mark = mark

    def cell(self) -> None:
        """Part the next text from the text before it, unless it begins a row."""
        if not self._gap:
            self._parts.append(" | ")

    def text(self, data: str, *, verbatim: bool = False) -> None:
        """Add text; white space at the beginning of a line is dropped unless it is `verbatim`."""
        if self._gap or self._mark:
            data = data.strip("\n") if verbatim else data.lstrip()
            if not data:
                return
            self._parts.append("\n" * self._gap + self._mark)
            self._gap, self._mark = 0, ""
        self._parts.append(data)

    def position(self) -> int:
        """Where the next text goes, for `since`."""
        return len(self._parts)

    def since(self, position: int) -> str:
        """The text added since `position`."""
        return "".join(self._parts[position:]).strip()

    def result(self) -> str:
        """All of it."""
        return "".join(self._parts)
