"""How an answer goes over the wire of the Responses API: one object, or typed events."""

from collections.abc import Iterator
from typing import Any

import orjson

from services.generate.answer.outcome import Outcome
from services.generate.delivery.chat import Envelope, extension, pieces
from services.generate.pipeline import Prepared
from services.generate.responses.answer import (
    CallOutput,
    FailureReason,
    FileCitation,
    Incomplete,
    MessageOutput,
    OutputText,
    ResponseBody,
    ResponsesUsage,
)
from services.generate.responses.request import FunctionTool, ResponsesRequest

_TEXT = {"output_index": 0, "content_index": 0}  # a text is the first item, its only part


class ResponsesWire:
    """One answer in the form of the Responses API. It numbers the events of a stream, so each
    answer needs its own. asked: what the answer repeats."""

    def __init__(self, envelope: Envelope, asked: ResponsesRequest) -> None:
        self._envelope = envelope
        self._asked = asked
        self._random = envelope.id.rpartition("_")[2]
        self._tools = [
            FunctionTool.model_validate(one).model_dump(exclude_none=True)
            for one in asked.tools or ()
        ]
        self._events = 0
        self._begun = False

    def whole(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> ResponseBody:
        """The whole answer."""
        cut = outcome.finish_reason == "length"
        return self._body(
            "incomplete" if cut else "completed",
            incomplete_details=Incomplete() if cut else None,
            output=self._output(prepared, outcome),
            usage=ResponsesUsage(
                input_tokens=outcome.prompt_tokens,
                output_tokens=outcome.completion_tokens,
                total_tokens=outcome.prompt_tokens + outcome.completion_tokens,
            ),
            refdesk=extension(prepared, outcome, total_ms),
        )

    def opening(self, prepared: Prepared) -> bytes:  # noqa: ARG002 - the protocol's
        """That the answer has begun."""
        body = self._body("in_progress").model_dump()
        return self._event("response.created", response=body) + self._event(
            "response.in_progress", response=body
        )

    def piece(self, text: str) -> bytes:
        """A piece of the text; with the first the item that holds it."""
        events = b""
        if not self._begun:
            self._begun = True
            item = MessageOutput(id=self._message, status="in_progress", content=[])
            part = OutputText(text="", annotations=[])
            events = self._event(
                "response.output_item.added", output_index=0, item=item.model_dump()
            ) + self._event(
                "response.content_part.added",
                **_TEXT,
                item_id=self._message,
                part=part.model_dump(),
            )
        return events + self._event(
            "response.output_text.delta", **_TEXT, item_id=self._message, delta=text, logprobs=[]
        )

    def rest(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> Iterator[bytes]:
        """The text unless it was shown, the ends of all items, and the whole answer."""
        if not outcome.shown:
            for one in pieces(outcome.answer.content):
                yield self.piece(one)
        body = self.whole(prepared, outcome, total_ms)
        for index, item in enumerate(body.output):
            yield from (
                self._text(item) if isinstance(item, MessageOutput) else self._call(index, item)
            )
            yield self._event(
                "response.output_item.done", output_index=index, item=item.model_dump()
            )
        yield self._event(f"response.{body.status}", response=body.model_dump())

    def failure(self, body: dict[str, Any]) -> bytes:
        """The answer without an output, and why."""
        error = body["error"]
        limited = error["type"] == "rate_limit_error"
        reason = FailureReason(
            code="rate_limit_exceeded" if limited else "server_error",
            message=f"{error['code']}: {error['message']}",
        )
        failed = self._body("failed", error=reason)
        return self._event("response.failed", response=failed.model_dump())

    @property
    def _message(self) -> str:
        return f"msg_{self._random}"

    def _output(self, prepared: Prepared, outcome: Outcome) -> list[MessageOutput | CallOutput]:
        output: list[MessageOutput | CallOutput] = []
        if outcome.answer.content:
            text = OutputText(
                text=outcome.answer.content, annotations=_citations(prepared, outcome)
            )
            status = "incomplete" if outcome.finish_reason == "length" else "completed"
            output.append(MessageOutput(id=self._message, status=status, content=[text]))
        for n, call in enumerate(outcome.tool_calls):
            output.append(
                CallOutput(
                    id=f"fc_{self._random}{n}",
                    call_id=call.id,
                    name=call.name,
                    arguments=call.arguments,
                    status="completed",
                )
            )
        return output

    def _text(self, item: MessageOutput) -> Iterator[bytes]:
        part = item.content[0]
        place = {**_TEXT, "item_id": item.id}
        for n, one in enumerate(part.annotations):
            yield self._event(
                "response.output_text.annotation.added",
                **place,
                annotation_index=n,
                annotation=one.model_dump(),
            )
        yield self._event("response.output_text.done", **place, text=part.text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=part.model_dump())

    def _call(self, index: int, item: CallOutput) -> Iterator[bytes]:
        begun = item.model_copy(update={"arguments": "", "status": "in_progress"})
        yield self._event("response.output_item.added", output_index=index, item=begun.model_dump())
        place = {"output_index": index, "item_id": item.id}
        yield self._event("response.function_call_arguments.delta", **place, delta=item.arguments)
        yield self._event(
            "response.function_call_arguments.done",
            **place,
            name=item.name,
            arguments=item.arguments,
        )

    def _body(self, status: Any, **known: Any) -> ResponseBody:
        asked = self._asked
        wanted = asked.text.format if asked.text else None
        return ResponseBody(
            id=self._envelope.id,
            created_at=self._envelope.created,
            status=status,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=asked.metadata or {},
            model=self._envelope.model,
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            text={
                "format": wanted.model_dump(by_alias=True, exclude_none=True)
                if wanted
                else {"type": "text"}
            },
            tool_choice=asked.tool_choice or "auto",
            tools=self._tools,
            **known,
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = orjson.dumps({"type": kind, "sequence_number": self._events, **fields})
        self._events += 1
        return b"event: " + kind.encode() + b"\ndata: " + event + b"\n\n"


def _citations(prepared: Prepared, outcome: Outcome) -> list[FileCitation]:
    by_number = {passage.n: passage for passage in prepared.passages}
    return [
        FileCitation(
            index=one.end,
            file_id=by_number[one.n].document_id,
            filename=by_number[one.n].title or by_number[one.n].document_id,
        )
        for one in outcome.answer.annotations
    ]
