"""The text of a draft without the thoughts that a model writes aloud before it.

Local models that reason (Qwen3, DeepSeek-R1, Magistral) begin with `<think>…</think>` where their
server does not take that apart. Thoughts are no answer: they would be shown, and verified as one.

Thoughts may speak of these tags, so that not each closing tag ends them. One does that begins its
line, or that nothing follows on its line. Where none of them does, the first one has ended them.
"""

import re
from enum import Enum, auto

_OPENING = ("<think>", "<thinking>", "[THINK]")
_CLOSING = ("</think>", "</thinking>", "[/THINK]")
_TAGS = (*_OPENING, *_CLOSING)
_LONGEST = max(map(len, _TAGS))


def _either(tags: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(map(re.escape, tags))})"


_OPEN, _CLOSE = _either(_OPENING), _either(_CLOSING)
_BLANKS = r"[ \t]{0,16}"
_ON_ITS_LINE = rf"\n{_BLANKS}{_CLOSE}"
_SPACE = re.compile(r"\s*")
_TAG = re.compile(f"(?P<opens>{_OPEN})|{_CLOSE}")
_ANY_END = re.compile(_CLOSE)
_END = re.compile(rf"{_ON_ITS_LINE}|{_CLOSE}(?={_BLANKS}\r?\n)")
_LAST = re.compile(rf"{_CLOSE}\s*\Z")
# Of a text that began as one: thoughts whose beginning stood in the prompt end on a line of their
# own. Where the text itself speaks of an opening tag, it may well speak of a closing one.
_MARK = re.compile(f"(?P<opens>{_OPEN})|{_ON_ITS_LINE}")
_WINDOW = 64  # no shorter than what these find
_BLOCKS = re.compile(rf"(?:\s*(?:{_OPEN}.*?)?{_CLOSE})*\s*", re.DOTALL)


class _Place(Enum):
    BEGINNING = auto()  # tags may follow
    THOUGHTS = auto()
    TEXT = auto()


class _Thoughts(Enum):
    UNSEEN = auto()
    SUPPOSED = auto()  # their opening tag stands in the prompt
    OPENED = auto()
    SETTLED = auto()  # no tag counts any more, but for more of them before the text


class Answer:
    """A text that comes piece by piece. Thoughts before it are held back, and left out.

    thinks_first: it is said to begin within thoughts, whose opening tag stands in the prompt.
    thought_aloud: so it did although nobody said so: what was given up to then were thoughts, and
    `text` begins behind them.
    """

    def __init__(self, *, thinks_first: bool) -> None:
        self.thought_aloud = False
        self._place = _Place.BEGINNING
        self._thoughts = _Thoughts.SUPPOSED if thinks_first else _Thoughts.UNSEEN
        self._recent = ""  # what may be part of a tag
        self._unended: list[str] = []  # thoughts, as far as known
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What there is of it, without white space around it."""
        return "".join(self._pieces).strip()

    def feed(self, piece: str) -> str:
        """Take a piece of what the model writes; gives what it adds to the text."""
        return self._in_text(piece) if self._place is _Place.TEXT else self._before_text(piece)

    def close(self, *, cut: bool) -> str:
        """The model has ended; gives what was held back and is text. cut: it would have gone on."""
        if self._place is _Place.TEXT:
            return ""
        written = "".join(self._unended) if self._place is _Place.THOUGHTS else self._recent
        if end := _ANY_END.search(written):
            blocks = _BLOCKS.match(written, end.end())
            text = written[blocks.end() if blocks else end.end() :]
            unended = _LAST.search(written) or text.startswith(_OPENING)
        else:
            # A model that did not think this time. Thoughts that were cut off stay thoughts.
            text = written
            unended = self._thoughts is _Thoughts.OPENED or (
                self._thoughts is _Thoughts.SUPPOSED and cut
            )
        self._end()
        self._place = _Place.TEXT
        return "" if unended else self._in_text(text)

    def _before_text(self, piece: str) -> str:
        new = len(self._recent) if self._place is _Place.THOUGHTS else 0
        written, at = self._recent + piece, 0
        while True:
            if self._place is _Place.BEGINNING:
                at = self._behind_tags(written, at)
            match self._place:
                case _Place.BEGINNING:
                    self._recent = written[at:]
                    return ""
                case _Place.TEXT:
                    self._recent = ""
                    return self._in_text(written[at:])
                case _Place.THOUGHTS if end := _END.search(written, at):
                    at = end.end()
                    self._end()
                case _Place.THOUGHTS:
                    self._unended.append(written[max(at, new) :])
                    self._recent = written[max(at, len(written) - _WINDOW) :]
                    return ""

    def _behind_tags(self, written: str, at: int) -> int:
        """Where the tags at `at` end; what follows is looked at as soon as it can't be one."""
        while True:
            if space := _SPACE.match(written, at):
                at = space.end()
            tag = _TAG.match(written, at)
            if tag is None:
                break
            at = tag.end()
            self._thoughts = _Thoughts.OPENED if tag["opens"] else _Thoughts.SETTLED
        begins = written[at : at + _LONGEST]
        if not any(one.startswith(begins) for one in _TAGS):
            within = self._thoughts in (_Thoughts.SUPPOSED, _Thoughts.OPENED)
            self._place = _Place.THOUGHTS if within else _Place.TEXT
        return at

    def _end(self) -> None:
        self._place, self._thoughts, self._recent = _Place.BEGINNING, _Thoughts.SETTLED, ""
        self._unended.clear()

    def _in_text(self, piece: str) -> str:
        if self._thoughts is _Thoughts.UNSEEN:
            recent = self._recent + piece
            self._recent = recent[-_WINDOW:]
            if mark := _MARK.search(recent):
                self._thoughts = _Thoughts.SETTLED
                if not mark["opens"]:
                    self.thought_aloud = any(map(str.strip, self._pieces))
                    self._pieces.clear()
                    self._end()
                    return self._before_text(recent[mark.end() :])
        self._pieces.append(piece)
        return piece
