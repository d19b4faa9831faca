"""An answer in the shapes of the Responses API, and our extension `refdesk`.

Source: OpenAI's API reference, the object `response`. Fields whose type is `None` alone, and lists
that are always empty, are there because clients expect them.
"""

from typing import Any, Literal

from pydantic import Field

from services.generate.protocol.answer import Extension
from services.generate.protocol.base import Own

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class FileCitation(Own):
    """A document that the text rests on. index: the character of the text that the cited sentence
    ends before. filename: the document's title, or its id."""

    type: Literal["file_citation"] = "file_citation"
    index: int
    file_id: str
    filename: str


class OutputText(Own):
    """The text, with inline markers ``[1]`` that name passages by their n."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[FileCitation]
    logprobs: list[Any] = Field([], max_length=0)


class MessageOutput(Own):
    """The answer's text as an item of the output."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


class CallOutput(Own):
    """A call that the client is to make. arguments: JSON, as the model wrote it."""

    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class InputTokens(Own):
    """Nothing is cached of what a model reads."""

    cached_tokens: Literal[0] = 0
    cache_write_tokens: Literal[0] = 0


class OutputTokens(Own):
    """Tokens of reasoning are not told apart."""

    reasoning_tokens: Literal[0] = 0


class ResponsesUsage(Own):
    """Tokens that language models read and wrote for this answer, failed drafts included."""

    input_tokens: int
    input_tokens_details: InputTokens = InputTokens()
    output_tokens: int
    output_tokens_details: OutputTokens = OutputTokens()
    total_tokens: int


class FailureReason(Own):
    """Why there is no answer; of code the API has no more that fit."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str


class Incomplete(Own):
    """Why the text is cut."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseBody(Own):
    """A whole answer, or what is known of it so far. refdesk: None until it is whole.

    instructions, max_output_tokens, metadata, parallel_tool_calls, text, tool_choice, tools: as
    asked for.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False] = False
    error: FailureReason | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[MessageOutput | CallOutput] = Field([])
    parallel_tool_calls: bool
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: None = None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: None = None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponsesUsage | None = None
    refdesk: Extension | None = None
