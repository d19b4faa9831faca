"""The body of POST /v1/responses, and why some of it is refused.

Source: OpenAI's API reference, `POST /responses`. Unknown fields are ignored, as in a chat.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from services.generate.prompting.images import Detail
from services.generate.protocol.base import DraftTokens, Foreign, bad
from services.generate.protocol.options import Options

_MAX_ITEMS = 1024  # a turn may have several: a message, calls, their outputs
_MAX_TOOLS = 128
_MAX_PARTS = 1024  # of one message; of all of them, see the chat


class Part(Foreign):
    """A part of a message's content."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class ImagePart(Foreign):
    """An image in a user's message. image_url: a data URL. file_id: read only to be refused."""

    type: Literal["input_image"]
    image_url: str | None = None
    file_id: Any = None
    detail: Detail | None = None


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "input_text", "text": value}]
    return _objects(value, "a text, or a list of parts")


# A text or parts, as parts.
Parts = Annotated[
    list[Part],
    Field(max_length=_MAX_PARTS),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[Part]),
]
# The same where images may be among them: `translation` reads each by its type.
MessageParts = Annotated[
    list[dict[str, Any]],
    Field(max_length=_MAX_PARTS),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[Part | ImagePart]),
]


class MessageItem(Foreign):
    """A turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: MessageParts


class CallItem(Foreign):
    """A call that the model made in an earlier answer. arguments: JSON, as it wrote it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CallOutputItem(Foreign):
    """What the client's function gave for the call `call_id`."""

    type: Literal["function_call_output"]
    call_id: str
    output: Parts


class FunctionTool(Foreign):
    """A function of the client's that a model may call. parameters: a JSON schema."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(Foreign):
    """The function that a model must call."""

    type: Literal["function"]
    name: str


class TextFormat(Foreign):
    """The form of the answer's text. All but `type` belong to ``json_schema``."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextConfig(Foreign):
    """How the text is wanted."""

    format: TextFormat | None = None


def _as_items(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return _objects(value, "a text, or a list of items")


def _objects(value: Any, wanted: str = "a list") -> Any:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f"send {wanted}, each a JSON object")
    return value


def _choice(value: Any) -> Any:
    if value in ("none", "auto", "required"):
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        return FunctionChoice.model_validate(value).model_dump()
    raise ValueError("send 'none', 'auto', 'required', or a function by type and name")


_Bounds = Field(min_length=1, max_length=_MAX_ITEMS)
# A text or items, as items: `translation` reads each by its type.
Items = Annotated[
    list[dict[str, Any]],
    _Bounds,
    BeforeValidator(
        _as_items,
        json_schema_input_type=str
        | Annotated[list[MessageItem | CallItem | CallOutputItem], _Bounds],
    ),
]
Tools = Annotated[
    list[dict[str, Any]],
    Field(max_length=_MAX_TOOLS),
    BeforeValidator(
        _objects,
        json_schema_input_type=Annotated[list[FunctionTool], Field(max_length=_MAX_TOOLS)],
    ),
]
ToolChoice = Annotated[
    str | dict[str, Any],
    BeforeValidator(
        _choice, json_schema_input_type=Literal["none", "auto", "required"] | FunctionChoice
    ),
]
_MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class ResponsesRequest(Foreign):
    """The body of POST /v1/responses. The last user message of the input is the question.

    instructions: as a system message before the input. max_output_tokens: longest draft of a
    language model. metadata: given back.
    previous_response_id, conversation, prompt, background: read only to be refused.
    """

    input: Items
    model: Annotated[str, Field(max_length=200)] | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: DraftTokens | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    metadata: Annotated[dict[str, _MetadataValue], Field(max_length=16)] | None = None
    refdesk: Options | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None

    def refuse_what_is_not_done(self) -> None:
        """Raise ApiError 400 where the request builds on what this service does not keep or do."""
        for field in ("previous_response_id", "conversation"):
            if getattr(self, field) is not None:
                raise bad(field, "answers are not stored: send the whole conversation as input")
        if self.prompt is not None:
            raise bad("prompt", "prompts are not stored: send the prompt's text as instructions")
        if self.background:
            raise bad("background", "answers are given at once: leave it out, and use stream")
