"""A completion as it comes: the chunks of an OpenAI-compatible server, or its one whole answer.

Servers differ: `choices` may be null, a first chunk may hold the role alone, usage may come in the
last chunk, in each, or never, fields that nobody knows may come with all. What can be read is read.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from services.generate.prompting.chat import ToolCall
from services.generate.prompting.images import MOST_IMAGE_TOKENS
from services.generate.reading.tokens import estimated_tokens
from services.generate.tiers.chunks import Call, Choice, Chunk
from services.generate.tiers.thoughts import Answer

DONE = b"[DONE]"
# Between what our estimate of a text's tokens says, a third of its bytes, and the truth: a token
# has a byte at least and seldom more than 60.
_MOST_TIMES, _LEAST_PART = 4, 20
# Tokens of the template around the turns, and of thinking that isn't shown.
_TEMPLATE_TOKENS, _THINKING_TOKENS = 1024, 200_000
_MOST_CALLS = 128  # tools of one answer
_NAME_CHARACTERS = 200
_CUT = frozenset({"length", "model_length"})  # as a server says that max_tokens ended its text


class RubbishError(Exception):
    """What came can't be read as a part of a completion."""


class ServerError(Exception):
    """The server says in mid-stream that it failed. rejected: for the request's own fault."""

    def __init__(self, *, rejected: bool) -> None:
        super().__init__("an error event")
        self.rejected = rejected


@dataclass
class _Gathered:
    """A tool call whose parts are still coming. own: its id where the server gives it none."""

    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    own: str = field(default_factory=lambda: f"call_{uuid4().hex}")


class Completion:
    """What a server has written so far.

    finish: the reason that it gave for ending, None before. model: its name of itself, "" where it
    tells none. done: whether nothing more is to come. thinks_first: see `Answer`.
    """

    def __init__(self, *, thinks_first: bool = False) -> None:
        self.finish: str | None = None
        self.model = ""
        self.done = False
        self.size = 0  # characters of text, thoughts in it included, and of tool calls
        self._answer = Answer(thinks_first=thinks_first)
        self._calls: list[_Gathered] = []
        self._open: dict[int, _Gathered] = {}  # by their index
        self._last = 0  # the index that was written at last
        self._written = 0  # tokens, estimated
        self._usage: Any = None

    @property
    def text(self) -> str:
        """What it wrote, without white space and thoughts around it."""
        return self._answer.text

    @property
    def thought_aloud(self) -> bool:
        """Whether text that `feed` gave was no text; see `Answer`."""
        return self._answer.thought_aloud

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that it wants made, in the order of their indexes."""
        return tuple(
            ToolCall(call.id or call.own, call.name, "".join(call.arguments))
            for call in sorted(self._calls, key=lambda call: call.index)
        )

    def feed(self, event: bytes) -> tuple[str, int]:
        """Take an event: the piece of text that it brings, "" for none, and its tokens, estimated.

        Tokens of tool calls and of thinking count; 0 says that the event brings nothing.
        Raises RubbishError, ServerError.
        """
        if event.strip() == DONE:
            self.done = True
            return "", 0
        try:
            chunk = Chunk.model_validate_json(event)
        except ValidationError:
            raise RubbishError from None
        if chunk.failed:
            raise ServerError(rejected=chunk.rejected)
        if chunk.usage is not None:
            self._usage = chunk.usage
        self.model = (chunk.model or self.model)[:_NAME_CHARACTERS]
        for choice in chunk.choices or ():
            if not choice.index:  # one answer was asked for; of others nothing is taken
                return self._take(choice)
        return "", 0

    def close(self) -> str:
        """All has come: the piece of text that was held back, as it could have been thoughts."""
        return self._answer.close(cut=self.finish == "length")

    def usage(self, text_tokens: int, images: int = 0) -> tuple[int, int] | None:
        """Tokens read and written as the server counts them; None where it did not, or can't be
        believed. text_tokens: of the prompt without its images, estimated; images: so many.
        """
        if not isinstance(self._usage, dict):
            return None
        read, wrote = self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
        if type(read) is not int or type(wrote) is not int:  # a bool is no count
            return None
        most = text_tokens * _MOST_TIMES + _TEMPLATE_TOKENS + images * MOST_IMAGE_TOKENS
        if not max(1, text_tokens // _LEAST_PART) <= read <= most:
            return None
        if (
            not self._written // _LEAST_PART
            <= wrote
            <= (self._written * _MOST_TIMES + _THINKING_TOKENS)
        ):
            return None
        return (read, wrote) if wrote or not self._written else None

    def _take(self, choice: Choice) -> tuple[str, int]:
        said = choice.delta or choice.message
        if choice.finish_reason == "error":
            raise ServerError(rejected=False)
        if choice.finish_reason:
            self.finish = "length" if choice.finish_reason in _CUT else choice.finish_reason
        if choice.message is not None:
            self.done = True
        if said is None:
            return "", 0
        text = said.text
        new = [text, said.thoughts]
        for call in said.tool_calls or ():
            new += self._take_call(call)
        self.size += len(text)
        tokens = estimated_tokens([part for part in new if part])
        self._written += tokens
        return self._answer.feed(text), tokens

    def _take_call(self, part: Call) -> list[str]:
        """Add to the call that this is a part of; the new text of it."""
        name = part.function.name if part.function else None
        arguments = part.function.written if part.function else ""
        index = self._last if part.index is None else part.index
        call = self._open.get(index)
        if call is None or (name and call.name and _is_another(part, call)):
            if len(self._calls) >= _MOST_CALLS:
                raise RubbishError
            call = self._open[index] = _Gathered(index)
            self._calls.append(call)
        self._last = index
        call.id = (part.id or call.id)[:_NAME_CHARACTERS]
        call.name = (name or call.name)[:_NAME_CHARACTERS]
        call.arguments.append(arguments)
        self.size += len(arguments)
        return [name or "", arguments]


def _is_another(part: Call, call: _Gathered) -> bool:
    """Whether a part with a name begins a call: some servers give all one index, or none."""
    return part.id != call.id if part.id and call.id else part.index is None
