"""How an answer goes over the wire: one JSON object, or server-sent events. Shapes only."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from services.generate.answer.citations import Answer
from services.generate.answer.outcome import Outcome
from services.generate.answer.passages import Passage
from services.generate.answer.pipeline import Prepared
from services.generate.protocol import (
    AnnotationBody,
    AssistantMessage,
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

KEEP_ALIVE = b": writing\n\n"
DONE = b"data: [DONE]\n\n"
_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+")


@dataclass(frozen=True)
class Envelope:
    """What every chunk of an answer repeats. created: seconds since 1970. model: as asked for."""

    id: str
    created: int
    model: str


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


def extension(prepared: Prepared, outcome: Outcome, total_ms: float) -> Extension:
    """The object `refdesk` of an answer."""
    return Extension(
        decision=DecisionBody(
            tier=outcome.tier,
            endpoint=outcome.endpoint,
            model=outcome.model,
            answered=outcome.answered,
            reasons=list(outcome.reasons),
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
                RuledOutBody(**asdict(one))
                for one in (*prepared.decision.ruled_out, *outcome.ruled_out)
            ],
        ),
        passages=[PassageBody(**asdict(passage)) for passage in prepared.passages],
        signals=SignalsBody(**asdict(prepared.signals)),
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
        reasons=[ReasonBody(**asdict(reason)) for reason in decision.reasons],
        ruled_out=[RuledOutBody(**asdict(one)) for one in decision.ruled_out],
        confidence=round(prepared.confidence, 4),
        signals=SignalsBody(**asdict(prepared.signals)),
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


def completion(
    envelope: Envelope, prepared: Prepared, outcome: Outcome, total_ms: float
) -> ChatCompletion:
    """The whole answer."""
    message = AssistantMessage(
        content=outcome.answer.content,
        annotations=annotations(outcome.answer, prepared.passages),
    )
    return ChatCompletion(
        id=envelope.id,
        created=envelope.created,
        model=envelope.model,
        choices=[Choice(message=message)],
        usage=usage(outcome),
        refdesk=extension(prepared, outcome, total_ms),
    )


def opening(envelope: Envelope) -> bytes:
    """The first event: the role."""
    return _chunk(envelope, {"role": "assistant", "content": ""})


def piece(envelope: Envelope, text: str) -> bytes:
    """A piece of the text."""
    return _chunk(envelope, {"content": text})


def rest(
    envelope: Envelope,
    prepared: Prepared,
    outcome: Outcome,
    total_ms: float,
    *,
    include_usage: bool,
) -> Iterator[bytes]:
    """The events after what was shown already: the text word by word unless it was, the end with
    the verdict, the usage, DONE."""
    if not outcome.shown:
        for one in _PIECE.findall(outcome.answer.content):
            yield piece(envelope, one)
    cited = [one.model_dump() for one in annotations(outcome.answer, prepared.passages)]
    yield _chunk(
        envelope,
        {"annotations": cited},
        finish_reason=outcome.finish_reason,
        refdesk=extension(prepared, outcome, total_ms).model_dump(),
    )
    if include_usage:
        yield _event({**_head(envelope), "choices": [], "usage": usage(outcome).model_dump()})
    yield DONE


def failure(body: dict[str, Any]) -> bytes:
    """An error in mid-stream; OpenAI's clients raise on it."""
    return _event(body)


def _chunk(
    envelope: Envelope, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return _event({**_head(envelope), "choices": [choice], "usage": None, **extra})


def _head(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": envelope.id,
        "object": "chat.completion.chunk",
        "created": envelope.created,
        "model": envelope.model,
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
