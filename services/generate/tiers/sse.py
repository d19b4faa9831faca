"""Server-sent events out of the bytes of an answer, as the WHATWG's HTML standard reads them.

Pure but for what has come so far. A body that is one JSON object after all, from a server that
does not stream, is one event.
"""

from collections.abc import Iterator

_ENDS = (b"\r", b"\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """An event, or a body that is no stream, is longer than it may be."""


class Events:
    """The data of each event. longest: of one event, bytes.

    Lines end with LF, CRLF or CR; comments and fields other than `data` are passed over; several
    lines of data are one text. What stands after the last blank line is an event, too: some
    servers leave out the blank line at the end.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""  # a line that has not ended yet
        self._data: list[bytes] = []
        self._size = 0  # of the event at hand
        self._after_cr = False
        self._whole: bool | None = None  # whether the body is one object; None before it begins

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that end in this piece. Raises EventTooLongError."""
        if self._whole is None:
            begun = self._rest + piece
            piece = begun.removeprefix(_BYTE_ORDER_MARK)
            begins = piece.lstrip()[:1]
            if not begins or _BYTE_ORDER_MARK.startswith(piece):
                self._rest = begun
                if len(begun) > self._longest:
                    raise EventTooLongError
                return
            self._rest = b""
            self._whole = begins == b"{"
        if self._whole:
            self._data.append(piece)
            self._grow(len(piece))
            return
        yield from self._lines(piece)

    def end(self) -> Iterator[bytes]:
        """What is left when the body has ended."""
        if self._whole:
            yield b"".join(self._data)
            return
        if self._rest:
            self._field(self._rest)
        if self._data:
            yield b"\n".join(self._data)

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        if self._after_cr and piece[:1] == b"\n":  # CRLF, cut in two
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        lines = (self._rest + piece).splitlines()
        self._rest = b"" if piece.endswith(_ENDS) or not lines else lines.pop()
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0
        if self._size + len(self._rest) > self._longest:
            raise EventTooLongError

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._grow(len(value))

    def _grow(self, more: int) -> None:
        self._size += more
        if self._size > self._longest:
            raise EventTooLongError
