"""The body of POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import orjson
from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from services.generate.prompting.chat import Chat
from services.generate.prompting.images import Image
from services.generate.protocol.base import DraftTokens, Foreign, bad
from services.generate.protocol.images import (
    MOST_IMAGES,
    MOST_IMAGES_BYTES,
    base64_size,
    read_image,
)
from services.generate.protocol.messages import Message, refuse_disorder
from services.generate.protocol.options import Options
from services.generate.protocol.tools import (
    MOST_TOOL_BYTES,
    MOST_TOOLS,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolWord,
)
from services.generate.verification.schemas import refuse_excess
from shared.errors import shown

MAX_QUESTION_CHARACTERS = 8192  # the desk takes no longer query
_MAX_MESSAGES = 512
_MAX_CONVERSATION_CHARACTERS = 400_000
_MAX_PARTS = 4096  # of the contents of all messages

Images = Mapping[int, tuple[Image, ...]]  # of the messages, by their places


class StreamOptions(Foreign):
    """include_usage: send a last chunk with the usage."""

    include_usage: bool = False


class ChatRequest(Foreign):
    """The body of POST /v1/chat/completions. The last user message is the question.

    max_tokens, max_completion_tokens: longest draft of a language model; by default the service's.
    """

    model: Annotated[str, Field(max_length=200)] = "auto"
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: DraftTokens | None = None
    max_completion_tokens: DraftTokens | None = None
    n: int | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolWord | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    refdesk: Options = Options()

    @field_validator("messages", mode="before")
    @classmethod
    def _parts_are_few(cls, messages: object) -> object:
        sent = messages if isinstance(messages, list) else ()
        contents = [one.get("content") for one in sent if isinstance(one, dict)]
        if sum(len(one) for one in contents if isinstance(one, list)) > _MAX_PARTS:
            raise ValueError(f"contents have over {_MAX_PARTS:,} parts; join them")
        return messages

    @field_validator("refdesk", mode="before")
    @classmethod
    def _null_is_default(cls, value: object) -> object:
        return Options() if value is None else value

    @field_validator("stream", mode="before")
    @classmethod
    def _null_is_whole(cls, value: object) -> object:
        return False if value is None else value

    @field_validator("tool_choice", mode="wrap")
    @classmethod
    def _a_word_or_a_tool(cls, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:  # which tells of each form by itself
            raise ValueError(
                "must be 'none', 'auto', 'required' or "
                '{"type": "function", "function": {"name": "…"}}'
            ) from None

    @field_validator("tools", mode="before")
    @classmethod
    def _not_too_much_to_check(cls, tools: object) -> object:
        refuse_excess(tools if isinstance(tools, list) else ())
        return tools

    @field_validator("tools")
    @classmethod
    def _names_differ_and_all_fit(cls, tools: list[Tool] | None) -> list[Tool] | None:
        names = [one.function.name for one in tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if len(orjson.dumps([_bare(one) for one in tools or ()])) > MOST_TOOL_BYTES:
            raise ValueError(f"the tools have over {MOST_TOOL_BYTES:,} bytes together")
        return tools

    @model_validator(mode="after")
    def _conversation_is_bounded(self) -> Self:
        if sum(message.size for message in self.messages) > _MAX_CONVERSATION_CHARACTERS:
            raise ValueError(
                f"messages hold over {_MAX_CONVERSATION_CHARACTERS:,} characters; send fewer turns"
            )
        return self

    def question(self) -> str:
        """The text of the last user message, stripped.

        Raises ApiError 400 where there is none, it is blank or too long, or some message holds what
        is not taken.
        """
        refuse_disorder(self.messages)
        place = self._asking()
        where = f"messages.{place}.content"
        text = self.messages[place].text.strip()
        if not text and self.messages[place].images:
            raise bad(where, "put into words what is asked: an image alone finds nothing")
        if not text:
            raise bad(where, "the last user message is blank: there is no question to answer")
        if len(text) > MAX_QUESTION_CHARACTERS:
            raise bad(
                where,
                f"the question has {len(text):,} characters, {MAX_QUESTION_CHARACTERS:,} are the "
                "most; put long texts into a corpus instead",
            )
        return text

    @property
    def image_characters(self) -> int:
        """How long the images are as they were sent."""
        return sum(len(one.url) for message in self.messages for _, one in message.images)

    def images(self) -> Images:
        """The images of each message that has some, by its place; may take some hundred ms.

        Raises ApiError 400 for one that is not taken, and for too many or too large ones.
        """
        count = sum(len(message.images) for message in self.messages)
        if count > MOST_IMAGES:
            raise bad("messages", f"there are {count} images, {MOST_IMAGES} are the most")
        urls = [one.url for message in self.messages for _, one in message.images]
        if sum(map(base64_size, urls)) > MOST_IMAGES_BYTES:
            raise bad("messages", f"the images have over {MOST_IMAGES_BYTES:,} bytes together")
        return {
            place: tuple(
                read_image(one, f"messages.{place}.content.{part}.image_url.url")
                for part, one in message.images
            )
            for place, message in enumerate(self.messages)
            if message.images
        }

    def chat(self, images: Images) -> Chat:
        """What the question is asked in. Messages that say and call nothing are left out.

        images: see `images`. Raises ApiError 400 where no message is a user's.
        """
        place = self._asking()
        sent = [
            None if one.says_nothing else one.sent(images.get(at, ()))
            for at, one in enumerate(self.messages)
        ]
        choice = self.tool_choice
        # Tools that must not be called are none.
        tools = None if choice == "none" else self.tools or None
        return Chat(
            before=tuple(one for one in sent[:place] if one is not None),
            after=tuple(one for one in sent[place + 1 :] if one is not None),
            tools=None if tools is None else tuple(_bare(one) for one in tools),
            tool_choice=None if tools is None or choice is None else _word_or_tool(choice),
            parallel_tool_calls=None if tools is None else self.parallel_tool_calls,
            response_format=(
                None
                if self.response_format is None or self.response_format.type == "text"
                else _bare(self.response_format)
            ),
            images=images.get(place, ()),
        )

    @property
    def turns(self) -> int:
        """Messages of the user."""
        return sum(message.role == "user" for message in self.messages)

    def refuse_what_is_not_done(self) -> None:
        """Raise ApiError 400 where the request asks for what this service does not do."""
        if self.n is not None and self.n != 1:
            raise bad("n", "only one answer is given: leave n out or send 1")
        if self.functions or self.function_call is not None:
            field = "functions" if self.functions else "function_call"
            raise bad(field, "the old form of tools is not taken: send tools and tool_choice")
        if self.tools or self.tool_choice in (None, "none", "auto"):
            self._refuse_unknown_choice()
            return
        raise bad("tool_choice", "there are no tools to choose from: send tools, too")

    def _refuse_unknown_choice(self) -> None:
        if isinstance(self.tool_choice, NamedTool):
            name = self.tool_choice.function.name
            if all(one.function.name != name for one in self.tools or ()):
                raise bad("tool_choice", f"there is no tool '{shown(name)}' among the tools")

    def _asking(self) -> int:
        users = [place for place, one in enumerate(self.messages) if one.role == "user"]
        if not users:
            raise bad("messages", "no message has the role 'user': there is no question to answer")
        return users[-1]


def _bare(part: Foreign) -> dict[str, Any]:
    return part.model_dump(by_alias=True, exclude_none=True)


def _word_or_tool(choice: ToolWord | NamedTool) -> str | dict[str, Any]:
    return choice if isinstance(choice, str) else _bare(choice)
