"""What every writer is: given a question and numbered passages, it drafts an answer with `[n]`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from services.generate.answer.evidence import Evidence
from services.generate.answer.passages import Passage


@dataclass(frozen=True)
class DraftRequest:
    """What a writer may go by.

    passages: best first, numbered from 1. evidence: their sentences, weighed against the question,
    best first. max_tokens: longest draft, for a writer that counts tokens. delimiter: random text
    for this request alone, to stand around the passages; it must not come back in a draft.
    worth_finishing: tells of the first whole sentences of a draft whether they can be shown; a
    writer that writes word by word may stop and return what it has where they can't.
    """

    question: str
    passages: Sequence[Passage]
    evidence: Sequence[Evidence]
    max_tokens: int
    delimiter: str
    worth_finishing: Callable[[str], bool]


@dataclass(frozen=True)
class Draft:
    """An answer that nobody has checked yet.

    text: with markers ``[n]``; empty where the writer declines: it finds no answer in the passages.
    prompt_tokens, completion_tokens: what a language model read and wrote; 0 where none was asked.
    finish_reason: ``length`` where the text was cut at max_tokens.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"]
    model: str

    @property
    def declined(self) -> bool:
        """Whether the writer found no answer."""
        return not self.text


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
