"""A chat as its client sent it, and what it needs of the model that answers it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.generate.prompting.images import Image


@dataclass(frozen=True)
class Chat:
    """What a chat holds besides its question, in OpenAI's form, as its client sent it.

    before, after: the messages before the one that asks, and after it; images of a message stand
    beside its text, under ``images``. images: of the one that asks. The others are None where they
    were not sent.
    """

    before: tuple[Mapping[str, Any], ...] = ()
    after: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    images: tuple[Image, ...] = ()

    @property
    def all_images(self) -> tuple[Image, ...]:
        """The images of the messages before the question, then its own."""
        earlier = (one for message in self.before for one in message.get("images", ()))
        return (*earlier, *self.images)


PLAIN = Chat()  # a question alone


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wants its client to make. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Capability(StrEnum):
    """What a request may need of a model beyond text."""

    TOOLS = "tools"
    SCHEMA = "schema"
    VISION = "vision"
