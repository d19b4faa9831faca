"""A completion as it comes: the chunks of an OpenAI-compatible server, or its one whole answer.

Servers differ: `choices` may be null, a first chunk may hold the role alone, usage may come in the
last chunk, in each, or never, fields that nobody knows may come with all. What can be read is read.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from services.generate.routing.request import estimated_tokens
from services.generate.tiers.endpoint import ToolCall

DONE = b"[DONE]"
# Between what our estimate of a text's tokens says, a third of its bytes, and the truth: a token
# has a byte at least and seldom more than 60.
_MOST_TIMES, _LEAST_PART = 4, 20
# Tokens of the template around the turns, and of thinking that isn't shown.
_TEMPLATE_TOKENS, _THINKING_TOKENS = 1024, 200_000
_MOST_CALLS = 128  # tools of one answer
_NAME_CHARACTERS = 200


class RubbishError(Exception):
    """What came can't be read as a part of a completion."""


class ServerError(Exception):
    """The server says in mid-stream that it failed. rejected: for the request's own fault."""

    def __init__(self, *, rejected: bool) -> None:
        super().__init__("an error event")
        self.rejected = rejected


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Function(_Part):
    name: str | None = None
    arguments: str | None = None


class _Call(_Part):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Text(_Part):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Part):
    index: int | None = 0
    delta: _Text | None = None
    message: _Text | None = None  # where the answer came whole
    finish_reason: str | None = None


class _Chunk(_Part):
    choices: list[_Choice] | None = None
    usage: Any = None
    model: str | None = None
    error: Any = None


@dataclass
class _Gathered:
    """A tool call whose parts are still coming."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Completion:
    """What a server has written so far.

    text: its pieces together. finish: the reason that it gave for ending, None before. model: its
    name of itself, "" where it tells none. done: whether nothing more is to come.
    """

    def __init__(self) -> None:
        self.finish: str | None = None
        self.model = ""
        self.done = False
        self.size = 0  # characters of text and tool calls
        self._pieces: list[str] = []
        self._calls: dict[int, _Gathered] = {}
        self._written = 0  # tokens, estimated
        self._usage: Any = None

    @property
    def text(self) -> str:
        """What it wrote, without white space around it."""
        return "".join(self._pieces).strip()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that it wants made, in the order of their indexes."""
        return tuple(
            ToolCall(call.id, call.name, "".join(call.arguments))
            for _, call in sorted(self._calls.items())
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
            chunk = _Chunk.model_validate_json(event)
        except ValidationError:
            raise RubbishError from None
        if chunk.error:
            raise ServerError(rejected=_is_rejection(chunk.error))
        if chunk.usage is not None:
            self._usage = chunk.usage
        self.model = (chunk.model or self.model)[:_NAME_CHARACTERS]
        for choice in chunk.choices or ():
            if not choice.index:  # one answer was asked for; of others nothing is taken
                return self._take(choice)
        return "", 0

    def usage(self, prompt_tokens: int) -> tuple[int, int] | None:
        """Tokens read and written as the server counts them; None where it did not, or can't be
        believed. prompt_tokens: of the prompt, estimated.
        """
        if not isinstance(self._usage, dict):
            return None
        read, wrote = self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
        if type(read) is not int or type(wrote) is not int:  # a bool is no count
            return None
        if (
            not max(1, prompt_tokens // _LEAST_PART)
            <= read
            <= (prompt_tokens * _MOST_TIMES + _TEMPLATE_TOKENS)
        ):
            return None
        if (
            not self._written // _LEAST_PART
            <= wrote
            <= (self._written * _MOST_TIMES + _THINKING_TOKENS)
        ):
            return None
        return (read, wrote) if wrote or not self._written else None

    def _take(self, choice: _Choice) -> tuple[str, int]:
        text = choice.delta or choice.message
        self.finish = choice.finish_reason or self.finish
        if choice.message is not None:
            self.done = True
        if text is None:
            return "", 0
        new = [text.content, text.reasoning or text.reasoning_content]
        for place, call in enumerate(text.tool_calls or ()):
            new += self._take_call(place if call.index is None else call.index, call)
        if text.content:
            self._pieces.append(text.content)
            self.size += len(text.content)
        tokens = estimated_tokens([part for part in new if part])
        self._written += tokens
        return text.content or "", tokens

    def _take_call(self, index: int, call: _Call) -> list[str | None]:
        """Add to the call of that index; the new text of it."""
        if index not in self._calls and len(self._calls) >= _MOST_CALLS:
            raise RubbishError
        gathered = self._calls.setdefault(index, _Gathered())
        gathered.id = (call.id or gathered.id)[:_NAME_CHARACTERS]
        if call.function is None:
            return []
        name, arguments = call.function.name, call.function.arguments
        gathered.name = (name or gathered.name)[:_NAME_CHARACTERS]
        if arguments:
            gathered.arguments.append(arguments)
            self.size += len(arguments)
        return [name, arguments]


def _is_rejection(error: object) -> bool:
    """Whether an error's code or status is that of a request that is wrong: 4xx but 429."""
    if not isinstance(error, dict):
        return False
    codes = [error.get("status"), error.get("code")]
    return any(type(code) is int and 400 <= code < 500 and code != 429 for code in codes)
