"""What every writer is: given a question and numbered passages, it drafts an answer with `[n]`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from services.generate.prompting.chat import PLAIN, Chat, ToolCall
from services.generate.prompting.images import IMAGE_TOKENS
from services.generate.reading.evidence import Evidence
from services.generate.reading.passages import Passage
from services.generate.tiers.meter import Meter


def _always(_: str) -> bool:
    return True


class Stop(StrEnum):
    """Why a draft is cancelled."""

    LEFT = "left"  # its caller did not wait
    LATE = "late"  # its share of the caller's time is over
    BEATEN = "beaten"  # a writer that was asked after it began before it


def _left() -> Stop:
    return Stop.LEFT


@dataclass(frozen=True)
class DraftRequest:
    """What a writer may go by.

    passages: best first, numbered from 1. evidence: their sentences, weighed against the question,
    best first. max_tokens: longest draft, for a writer that counts tokens. delimiter: random text
    for this request alone, to stand around the passages; it must not come back in a draft.
    worth_finishing: tells of the first whole sentences of a draft whether they can be shown; a
    writer that writes word by word may stop and return what it has where they can't.
    salt: random letters for this request alone, for placeholders. datamark: the character that
    stands for the passages' white space in a prompt, "" for none. Neither may come back.
    chat: what it was asked in. show: called in the event loop with each piece of the draft's text
    as it is written; None where nothing is shown before it is verified. meter: is told what the
    draft uses, as it uses it. stopped: why, for a writer that is cancelled. image_tokens,
    thinks_first: see `Model`.
    """

    question: str
    passages: Sequence[Passage]
    evidence: Sequence[Evidence]
    max_tokens: int
    delimiter: str
    worth_finishing: Callable[[str], bool] = _always
    chat: Chat = PLAIN
    show: Callable[[str], None] | None = None
    meter: Meter = field(default_factory=Meter)
    salt: str = ""
    datamark: str = ""
    stopped: Callable[[], Stop] = _left
    image_tokens: int = IMAGE_TOKENS
    thinks_first: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """What of the prompt must not show in a draft."""
        return tuple(one for one in (self.delimiter, self.salt) if one)


@dataclass(frozen=True)
class Draft:
    """An answer that nobody has checked yet.

    text: with markers ``[n]``; empty where the writer declines: it finds no answer in the passages.
    finish_reason: ``length`` where the text was cut at max_tokens. tool_calls: in the place of a
    text, or after one.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    model: str
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def declined(self) -> bool:
        """Whether the writer found no answer."""
        return not self.text and not self.tool_calls


class Endpoint(Protocol):
    """A writer. Implementations are safe to use from many tasks at once.

    name: what a decision calls it. model: the model it runs.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    async def draft(self, request: DraftRequest) -> Draft:
        """Write a draft, within the current request's deadline; cancellable.

        Raises ApiError: 503 where the writer can't be reached or has too much to do, 502 where it
        answers rubbish or nothing, 504 when the deadline passes.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds. No draft may follow."""
        ...


class EmbeddedEndpoint(Endpoint, Protocol):
    """A writer inside this process: it is part of what makes this service ready."""

    async def probe(self) -> None:
        """Prove that it writes, with the least of work. Raises ApiError where it does not."""
        ...
