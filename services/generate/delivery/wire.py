"""What the form of an answer is to its delivery: a whole object, or the events of a stream."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from fastapi import Request, Response
from pydantic import BaseModel

from services.generate.answer.outcome import Outcome
from services.generate.pipeline import Prepared
from services.generate.protocol import ChatRequest

KEEP_ALIVE = b": writing\n\n"  # a comment, which readers of events skip
# Of a route: how the OpenAPI document describes the other form that its answer may have; the
# schema is of each event.
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                    "required": ["data"],
                }
            }
        }
    }
}


class Wire(Protocol):
    """The form of one answer. Its methods give bytes of whole events, in the order they are called:
    `opening`, `piece` as often as needed, then `rest` or `failure`. Shapes only: it waits for
    nothing."""

    def whole(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> BaseModel:
        """The answer as one object, when it is not streamed."""
        ...

    def opening(self, prepared: Prepared) -> bytes:
        """What comes before the text."""
        ...

    def piece(self, text: str) -> bytes:
        """A piece of a text that is shown while it is written."""
        ...

    def rest(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> Iterator[bytes]:
        """What comes after the pieces: the whole text where none was shown, and the verdict."""
        ...

    def failure(self, body: dict[str, Any]) -> bytes:
        """The end of a stream that can't go on. body: in the one shape of errors."""
        ...


# The answer to a chat in the form of a wire, whichever route the chat came by.
Answering = Callable[[ChatRequest, Wire, Request], Awaitable[Response | BaseModel]]
