"""The messages of a conversation: their fields, and the order in which they make sense."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from services.generate.prompting.images import Image
from services.generate.protocol.base import Foreign, bad
from services.generate.protocol.images import ImageUrl
from services.generate.protocol.tools import ToolName
from shared.errors import shown

IMAGE = "image_url"  # the type of a part
_Id = Annotated[str, Field(min_length=1, max_length=256)]


class ContentPart(Foreign):
    """A part of a message's content: of type ``text``, or of a user's, ``image_url``."""

    type: str
    text: str = ""
    image_url: ImageUrl | None = None


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is not None and not isinstance(value, list):
        raise ValueError("send a text, or a list of parts")
    return value


# A text or parts, as parts.
Content = Annotated[
    list[ContentPart] | None,
    BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart] | None),
]


class CalledFunction(Foreign):
    """What was called. arguments: JSON as the model wrote it."""

    name: ToolName
    arguments: str


class MadeCall(Foreign):
    """A tool call that an assistant made before."""

    id: _Id
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Foreign):
    """One turn of the conversation. tool_calls: of an assistant; tool_call_id: which of them a
    message of the role ``tool`` answers."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[MadeCall], Field(max_length=128)] | None = None
    tool_call_id: _Id | None = None

    @property
    def text(self) -> str:
        """The text of the content; parts are joined by line breaks."""
        return "\n".join(part.text for part in self.content or () if part.type == "text")

    @property
    def images(self) -> Sequence[tuple[int, ImageUrl]]:
        """The images of the content, each with its place among the parts."""
        return [
            (place, part.image_url)
            for place, part in enumerate(self.content or ())
            if part.type == IMAGE and part.image_url is not None
        ]

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is lost without it. A tool's empty result is one."""
        return self.role != "tool" and not (self.text or self.images or self.tool_calls)

    @property
    def size(self) -> int:
        """Characters of all that a model would read of it, but for images."""
        calls = self.tool_calls or ()
        return len(self.text) + sum(len(one.function.arguments) for one in calls)

    def sent(self, images: tuple[Image, ...] = ()) -> dict[str, Any]:
        """What a model server gets of it, in OpenAI's form but for its images: they stand beside
        the text, under ``images``, until they are sent."""
        message: dict[str, Any] = {"role": self.role, "content": self.text}
        if images:
            message["images"] = images
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [one.model_dump() for one in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def refuse_disorder(messages: Sequence[Message]) -> None:
    """Raise ApiError 400 for parts that are not taken, and where tool calls and their results don't
    follow each other: every call is answered, once, right behind the message that made it."""
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        _refuse_other_parts(message, f"{where}.content")
        if message.role == "tool":
            if message.tool_call_id is None:
                raise bad(f"{where}.tool_call_id", "a message of the role 'tool' names its call")
            if message.tool_call_id not in open_calls:
                raise bad(
                    f"{where}.tool_call_id",
                    f"no call '{shown(message.tool_call_id)}' waits for a result here: each is "
                    "answered once, right behind the assistant's message that made it",
                )
            open_calls.remove(message.tool_call_id)
            continue
        if open_calls:
            raise _unanswered(where, open_calls)
        if message.tool_calls:
            if message.role != "assistant":
                raise bad(f"{where}.tool_calls", "only an assistant calls tools")
            open_calls = {one.id for one in message.tool_calls}
            if len(open_calls) < len(message.tool_calls):
                raise bad(f"{where}.tool_calls", "two calls have the same id")
    if open_calls:
        raise _unanswered(f"messages.{len(messages) - 1}", open_calls)


def _unanswered(where: str, open_calls: set[str]) -> Exception:
    first = shown(min(open_calls))
    return bad(where, f"the call '{first}' has no result: a message of the role 'tool' is missing")


def _refuse_other_parts(message: Message, where: str) -> None:
    for place, part in enumerate(message.content or ()):
        if part.type == IMAGE and message.role != "user":
            raise bad(f"{where}.{place}.type", "images are taken in messages of the user alone")
        if part.type == IMAGE and part.image_url is None:
            raise bad(f"{where}.{place}.image_url", "a part of type 'image_url' has one")
        if part.type not in ("text", IMAGE):
            raise bad(
                f"{where}.{place}.type",
                f"parts of type '{shown(part.type)}' are not taken; send text, or an image_url",
            )
