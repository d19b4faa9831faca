"""How an answer goes over the wire: one JSON object, or server-sent events. Shapes only."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from services.generate.answer.outcome import Outcome
from services.generate.pipeline import Prepared
from services.generate.protocol import (
    AnnotationBody,
    AssistantMessage,
    AttemptBody,
    CallBody,
    CallFunction,
    ChatCompletion,
    Choice,
    DecisionBody,
    Extension,
    FailureBody,
    PassageBody,
    ReasonBody,
    RouteAnswer,
    RuledOutBody,
    SignalsBody,
    StepBody,
    Timings,
    UrlCitation,
    Usage,
    Verification,
)
from services.generate.reading.citations import Answer
from services.generate.reading.passages import Passage

DONE = b"data: [DONE]\n\n"
_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+")


@dataclass(frozen=True)
class Envelope:
    """What every chunk of an answer repeats. created: seconds since 1970. model: as asked for."""

    id: str
    created: int
    model: str


def source_event(passage: Passage) -> dict[str, Any]:
    """A passage as Open WebUI's event of a source.

    It numbers sources by their order and drops those that have the name or the id of an earlier
    one: both are unique here, so that its numbers are those of the text's markers.
    """
    name = f"{passage.title or passage.document_id} [{passage.n}]"
    source = {"id": passage.id, "name": name}
    if passage.url is not None:
        source["url"] = passage.url
    at = f"refdesk://{passage.corpus}/{passage.id}"
    data = {
        "source": source,
        "document": [passage.text],
        "metadata": [{"source": at, "name": name}],
    }
    return {"type": "source", "data": data}


def pieces(content: str) -> list[str]:
    """A text word by word, each with the white space before it."""
    return _PIECE.findall(content)


def annotations(answer: Answer, passages: tuple[Passage, ...]) -> list[AnnotationBody]:
    """The answer's citations in OpenAI's form."""
    by_number = {passage.n: passage for passage in passages}
    return [
        AnnotationBody(
            url_citation=UrlCitation(
                start_index=one.start,
                end_index=one.end,
                title=by_number[one.n].title or by_number[one.n].document_id,
                url=by_number[one.n].address,
            )
        )
        for one in answer.annotations
    ]


def calls(outcome: Outcome) -> list[CallBody]:
    """The tool calls that the client is asked to make."""
    return [
        CallBody(id=one.id, function=CallFunction(name=one.name, arguments=one.arguments))
        for one in outcome.tool_calls
    ]


def extension(prepared: Prepared, outcome: Outcome, total_ms: float) -> Extension:
    """The object `refdesk` of an answer."""
    return Extension(
        decision=DecisionBody(
            tier=outcome.tier,
            endpoint=outcome.endpoint,
            model=outcome.model,
            answered=outcome.answered,
            reasons=[str(one) for one in outcome.reasons],
            verification=Verification(
                passed=outcome.passed,
                failures=[
                    FailureBody(
                        check=failure.check, detail=failure.detail, evidence=failure.evidence
                    )
                    for failure in outcome.failures
                ],
            ),
            escalated_from=outcome.escalated_from,
            rule=prepared.decision.rule,
            data_class=prepared.decision.data_class,
            policy=prepared.decision.policy,
            ruled_out=[
                RuledOutBody(**vars(one))
                for one in (*prepared.decision.ruled_out, *outcome.ruled_out)
            ],
        ),
        attempts=[AttemptBody(**vars(one)) for one in outcome.attempts],
        cost_nano_dollars=outcome.cost_nano_dollars,
        cached=outcome.cached is not None,
        passages=[PassageBody(**vars(passage)) for passage in prepared.passages],
        signals=SignalsBody(**vars(prepared.signals)),
        degraded=[*prepared.degraded, *outcome.degraded],
        timings_ms=Timings(
            retrieve=round(prepared.retrieve_ms, 1),
            route=round(prepared.route_ms, 1),
            draft=round(outcome.draft_ms, 1),
            verify=round(outcome.verify_ms, 1),
            total=round(total_ms, 1),
        ),
    )


def route_answer(prepared: Prepared, total_ms: float) -> RouteAnswer:
    """The decision alone, with what it was made from."""
    decision = prepared.decision
    return RouteAnswer(
        tier=decision.tier,
        model=decision.model,
        version=decision.version,
        fallbacks=list(decision.chain[1:]),
        escalation=[
            StepBody(tier=step.tier, models=list(step.chain)) for step in decision.escalation
        ],
        last_resort=decision.last_resort,
        declines=decision.declines,
        checks=decision.checks,
        rule=decision.rule,
        data_class=decision.data_class,
        data_class_source=decision.source,
        policy=decision.policy,
        reasons=[ReasonBody(**vars(reason)) for reason in decision.reasons],
        ruled_out=[RuledOutBody(**vars(one)) for one in decision.ruled_out],
        confidence=round(prepared.confidence, 4),
        signals=SignalsBody(**vars(prepared.signals)),
        degraded=list(prepared.degraded),
        timings_ms={
            "retrieve": round(prepared.retrieve_ms, 1),
            "route": round(prepared.route_ms, 1),
            "total": round(total_ms, 1),
        },
    )


def usage(outcome: Outcome) -> Usage:
    """What language models read and wrote."""
    return Usage(
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        total_tokens=outcome.prompt_tokens + outcome.completion_tokens,
    )


@dataclass(frozen=True)
class ChatWire:
    """An answer in the form of chat completions.

    include_usage: of a stream, in a last chunk. source_events: a stream tells Open WebUI of every
    passage, in chunks without choices, so that other clients skip them.
    """

    envelope: Envelope
    include_usage: bool = False
    source_events: bool = False

    def whole(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> ChatCompletion:
        """The whole answer."""
        wanted = calls(outcome)
        message = AssistantMessage(
            content=None if wanted else outcome.answer.content,
            tool_calls=wanted or None,
            annotations=annotations(outcome.answer, prepared.passages),
        )
        return ChatCompletion(
            id=self.envelope.id,
            created=self.envelope.created,
            model=self.envelope.model,
            choices=[Choice(message=message, finish_reason=outcome.finish_reason)],
            usage=usage(outcome),
            refdesk=extension(prepared, outcome, total_ms),
        )

    def opening(self, prepared: Prepared) -> bytes:
        """The role, and the sources where they are wanted."""
        sources = prepared.passages if self.source_events else ()
        return self._chunk({"role": "assistant", "content": ""}) + b"".join(
            _event({**self._head(), "choices": [], "usage": None, "event": source_event(passage)})
            for passage in sources
        )

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        return self._chunk({"content": text})

    def rest(self, prepared: Prepared, outcome: Outcome, total_ms: float) -> Iterator[bytes]:
        """The text unless it was shown, the end with the verdict, the usage, DONE."""
        if not outcome.shown:
            for one in pieces(outcome.answer.content):
                yield self.piece(one)
        for index, call in enumerate(calls(outcome)):
            yield self._chunk({"tool_calls": [{"index": index, **call.model_dump()}]})
        cited = [one.model_dump() for one in annotations(outcome.answer, prepared.passages)]
        yield self._chunk(
            {"annotations": cited},
            finish_reason=outcome.finish_reason,
            refdesk=extension(prepared, outcome, total_ms).model_dump(),
        )
        if self.include_usage:
            yield _event({**self._head(), "choices": [], "usage": usage(outcome).model_dump()})
        yield DONE

    def failure(self, body: dict[str, Any]) -> bytes:
        """An error in mid-stream; OpenAI's clients raise on it."""
        return _event(body)

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _event({**self._head(), "choices": [choice], "usage": None, **extra})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.envelope.id,
            "object": "chat.completion.chunk",
            "created": self.envelope.created,
            "model": self.envelope.model,
        }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
