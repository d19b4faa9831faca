"""A request of the Responses API as the chat that it means, and errors of that chat back. Pure."""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.generate.policy.schema import AUTO
from services.generate.protocol import ChatRequest
from services.generate.protocol.base import bad
from services.generate.responses.request import (
    CallItem,
    CallOutputItem,
    FunctionTool,
    ImagePart,
    MessageItem,
    Part,
    ResponsesRequest,
    TextFormat,
)
from shared.errors import ApiError, refusal, shown

Body = TypeVar("Body", bound=BaseModel)
_ITEMS: dict[str, type[MessageItem | CallItem | CallOutputItem]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
}
_PARTS: dict[str, type[Part | ImagePart]] = {
    "input_text": Part,
    "output_text": Part,
    "text": Part,
    "input_image": ImagePart,
}
_INSTRUCTIONS = "instructions"
# Fields of a chat that have another name here; the first that fits counts.
_NAMES = (
    (re.compile(r"^response_format\.json_schema\b"), "text.format"),
    (re.compile(r"^response_format\b"), "text.format"),
    (re.compile(r"^(tools\.\d+)\.function\b"), r"\1"),
    (re.compile(r"^tool_choice\.function\b"), "tool_choice"),
    (re.compile(r"^max_completion_tokens\b"), "max_output_tokens"),
)


@dataclass(frozen=True)
class Translation:
    """The chat that a request means. places: where each of its messages stands in the request."""

    chat: ChatRequest
    places: tuple[str, ...]

    def told(self, error: ApiError) -> ApiError:
        """An error about the chat, about the request it came from: its `param` is a field there."""
        if error.param is None:
            return error
        param = _place(error.param, self.places)
        message = error.message
        if message.startswith(error.param):
            message = param + message.removeprefix(error.param)
        return ApiError(error.status, error.code, message, param=param, headers=error.headers)


def as_chat(body: ResponsesRequest) -> Translation:
    """The same request as a chat. Raises ApiError 400 for what has no meaning there."""
    body.refuse_what_is_not_done()
    messages, places = _messages(body)
    chat = {
        "model": body.model or AUTO,
        "messages": messages,
        "stream": bool(body.stream),
        "max_completion_tokens": body.max_output_tokens,
        "tools": [_tool(n, one) for n, one in enumerate(body.tools)] if body.tools else None,
        "tool_choice": _tool_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _response_format(body.text.format) if body.text else None,
        "refdesk": body.refdesk,
    }
    sent = {name: value for name, value in chat.items() if value is not None}
    try:
        return Translation(ChatRequest.model_validate(sent), places)
    except ValidationError as error:
        fault = error.errors()[0]
        place = _place(".".join(str(part) for part in fault["loc"]), places)
        raise refusal(place.split(".") if place else (), fault["msg"], 400) from None


def _messages(body: ResponsesRequest) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The messages, and where each comes from. Calls in a row are one turn of the assistant."""
    messages: list[dict[str, Any]] = []
    places = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
        places.append(_INSTRUCTIONS)
    for n, raw in enumerate(body.input):
        place = f"input.{n}"
        item = _item(place, raw)
        if isinstance(item, CallItem) and messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(_call(item))
            continue
        messages.append(_message(place, item))
        places.append(place)
    return messages, tuple(places)


def _item(place: str, raw: dict[str, Any]) -> MessageItem | CallItem | CallOutputItem:
    kind = raw.get("type", "message")
    if not isinstance(kind, str) or kind not in _ITEMS:
        raise bad(
            f"{place}.type",
            f"items of type '{shown(str(kind))}' are not taken; there are {', '.join(_ITEMS)}",
        )
    return _read(place, _ITEMS[kind], raw)


def _message(place: str, item: MessageItem | CallItem | CallOutputItem) -> dict[str, Any]:
    match item:
        case MessageItem():
            parts = [_part(f"{place}.content.{n}", one) for n, one in enumerate(item.content)]
            return {"role": item.role, "content": parts}
        case CallItem():
            return {"role": "assistant", "content": None, "tool_calls": [_call(item)]}
        case CallOutputItem():
            return {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}


def _part(place: str, raw: dict[str, Any]) -> dict[str, Any]:
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        what = f"parts of type '{shown(str(kind))}' are not taken; there are {', '.join(_PARTS)}"
        raise bad(f"{place}.type", what)
    part = _read(place, _PARTS[kind], raw)
    if isinstance(part, Part):
        return {"type": "text", "text": part.text}
    if part.file_id is not None:
        raise bad(f"{place}.file_id", "no files are stored: send the image as image_url")
    if part.image_url is None:
        raise bad(f"{place}.image_url", "an input_image has one")
    return {"type": "image_url", "image_url": {"url": part.image_url, "detail": part.detail}}


def _text(parts: list[Part]) -> str:
    return "\n".join(part.text for part in parts)


def _call(item: CallItem) -> dict[str, Any]:
    function = {"name": item.name, "arguments": item.arguments}
    return {"id": item.call_id, "type": "function", "function": function}


def _tool(n: int, raw: dict[str, Any]) -> dict[str, Any]:
    place = f"tools.{n}"
    if raw.get("type") != "function":
        raise bad(
            f"{place}.type",
            f"tools of type '{shown(str(raw.get('type')))}' are not taken, functions are; "
            "documents are searched without a tool, see refdesk.corpora",
        )
    tool = _read(place, FunctionTool, raw)
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, dict):
        return choice
    return {"type": "function", "function": {"name": choice["name"]}}


def _response_format(wanted: TextFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    schema = wanted.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    return {"type": "json_schema", "json_schema": schema}


def _read(place: str, model: type[Body], raw: dict[str, Any]) -> Body:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise refusal((*place.split("."), *fault["loc"]), fault["msg"], 400) from None


def _place(param: str, places: tuple[str, ...]) -> str:
    """The field of the request that a field of its chat comes from."""
    if found := re.match(r"messages\.(\d+)(.*)", param, re.DOTALL):
        place = places[int(found[1])]
        within = (
            found[2].replace(".tool_call_id", ".call_id").replace(".image_url.url", ".image_url")
        )
        return place if place == _INSTRUCTIONS else place + within
    if param == "messages":
        return "input"
    for pattern, name in _NAMES:
        if pattern.match(param):
            return pattern.sub(name, param)
    return param
