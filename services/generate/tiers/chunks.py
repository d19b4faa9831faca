"""What an event of an OpenAI-compatible server holds, in the forms that servers give it.

A text is a string or, from Mistral and some gateways, a list of parts. Thoughts come under several
names, or as parts; they are counted, and never shown. Fields that nobody knows are passed over.
"""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

_TEXTS = frozenset({None, "text", "output_text"})  # types of parts whose `text` is for the reader


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Piece(_Read):
    """A part of a text."""

    type: str | None = None
    text: str | None = None
    thinking: Any = None


# In this order, which is quicker than to look for the best: nearly all are strings.
_Content = Annotated[str | list[str | Piece] | None, Field(union_mode="left_to_right")]


class Function(_Read):
    """What is called. arguments: JSON, or, from a few servers, what that would say."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None

    @property
    def written(self) -> str:
        """The arguments as JSON, or the piece of it that this is."""
        if isinstance(self.arguments, dict):
            return orjson.dumps(self.arguments).decode()
        return self.arguments or ""


class Call(_Read):
    """A tool call, or a piece of it."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(_Read):
    """What a model says. refusal: in the place of a text, where an answer has a schema."""

    content: _Content = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    thinking: Any = None
    tool_calls: list[Call] | None = None

    @property
    def text(self) -> str:
        """What is for the reader."""
        if isinstance(self.content, list):
            said = (Piece(text=one) if isinstance(one, str) else one for one in self.content)
            return "".join(one.text or "" for one in said if one.type in _TEXTS)
        return self.content or self.refusal or ""

    @property
    def thoughts(self) -> str:
        """What is not."""
        # Of one that gives the same under two names, once.
        thoughts = _words(self.reasoning or self.reasoning_content or self.thinking)
        if isinstance(self.content, list):
            others = [one for one in self.content if isinstance(one, Piece)]
            others = [one for one in others if one.type not in _TEXTS]
            thoughts += "".join(_words(one.thinking or one.text) for one in others)
        return thoughts


class Choice(_Read):
    """An answer, of which there may be several. message: where it comes whole."""

    index: int | None = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None


class Chunk(_Read):
    """An event. object, code: of an error, where it has no field of that name."""

    choices: list[Choice] | None = None
    usage: Any = None
    model: str | None = None
    error: Any = None
    object: Any = None
    code: Any = None

    @property
    def failed(self) -> bool:
        """Whether the server says that it failed."""
        return bool(self.error) or self.object == "error"

    @property
    def rejected(self) -> bool:
        """Whether it failed for the request's own fault: a code or status of 4xx but 429."""
        told = self.error if isinstance(self.error, dict) else {"code": self.code}
        codes = (told.get("status"), told.get("code"))
        return any(type(code) is int and 400 <= code < 500 and code != 429 for code in codes)


def _words(said: Any) -> str:
    """The words of thoughts: a text, or a list of parts that have one."""
    match said:
        case str():
            return said
        case list():
            return "".join(_words(one) for one in said)
        case {"text": text}:
            return _words(text)
        case _:
            return ""
