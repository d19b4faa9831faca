"""What goes on record of an answer: the body of an audit record. Pure functions."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from services.generate.answer.outcome import Attempt, Outcome, total_cost
from services.generate.pipeline import Prepared
from services.generate.prompting.chat import PLAIN
from services.generate.prompting.images import Image, told
from services.generate.reading.passages import Passage
from services.generate.routing.kept import kept
from services.generate.trust.escalations import LAST_RESORT, Escalation
from services.generate.trust.redact import masked, masked_excerpt
from shared.settings import AuditText


class Status(StrEnum):
    """How an answer ended.

    answered: from the sources. declined: with the sentence that they do not answer. failed: with an
    error, or late. abandoned: its caller was gone before it was ready.
    """

    ANSWERED = "answered"
    DECLINED = "declined"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Asked:
    """A question as it came. at: UTC. principal: the name of the key's holder, never the key.

    model: as the request names it. streamed: whether the answer was to come as events.
    """

    at: datetime
    request_id: str
    principal: str
    model: str
    streamed: bool
    question: str


def sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def body(
    asked: Asked,
    status: Status,
    form: AuditText,
    attempts: Sequence[Attempt],
    *,
    error: str | None = None,
    prepared: Prepared | None = None,
    outcome: Outcome | None = None,
) -> dict[str, Any]:
    """The body of the record. form: how texts are kept. attempts: what was asked of models, also
    where there is no outcome. error: the code of what it failed with.

    prepared, outcome: as far as it came; what was not reached has no fields.
    """
    record: dict[str, Any] = {
        "at": asked.at.isoformat(),
        "request_id": asked.request_id,
        "principal": asked.principal,
        "asked_model": masked(asked.model),
        "streamed": asked.streamed,
        "status": status,
        "error": error,
        "text": form,
        "question": _text(asked.question, form),
        "attempts": [vars(one) for one in attempts],
        "cost_nano_dollars": total_cost(attempts),
        "degraded": [
            *(prepared.degraded if prepared is not None else ()),
            *(outcome.degraded if outcome is not None else ()),
        ],
    }
    if prepared is not None:
        record |= _decided(prepared, form)
    if outcome is not None:
        record |= _written(outcome, form)
    return record


def steps(outcome: Outcome) -> tuple[Escalation, ...]:
    """The escalations of an answer, in order."""
    return tuple(
        Escalation(hop.reason, hop.source, hop.target or LAST_RESORT, hop.checks)
        for hop in outcome.hops
    )


def _decided(prepared: Prepared, form: AuditText) -> dict[str, Any]:
    decision = prepared.decision
    chat = prepared.query.chat
    written = orjson.dumps(chat, default=told, option=orjson.OPT_SORT_KEYS).decode()
    return {
        "chat": None if chat == PLAIN else _text(written, form),
        "images": [_image(one) for one in chat.all_images],
        "passages": [_passage(one) for one in prepared.passages],
        "features": kept(prepared.features),
        "decision": {
            "tier": decision.tier,
            "model": decision.model,
            "version": decision.version,
            "rule": decision.rule,
            "data_class": decision.data_class,
            "policy": decision.policy,
            "checks": decision.checks,
            "reasons": [_told(str(one), form) for one in decision.reasons],
            "ruled_out": [{"model": one.model, "rule": one.rule} for one in decision.ruled_out],
        },
    }


def _written(outcome: Outcome, form: AuditText) -> dict[str, Any]:
    return {
        "answer": _text(outcome.answer.content, form),
        "tool_calls": [
            {"name": one.name, "arguments": _text(one.arguments, form)}
            for one in outcome.tool_calls
        ],
        "tier": outcome.tier,
        "endpoint": outcome.endpoint,
        "model": outcome.model,
        "reasons": [_told(str(one), form) for one in outcome.reasons],
        "escalated_from": outcome.escalated_from,
        "hops": [vars(one) for one in steps(outcome)],
        "verification": {
            "passed": outcome.passed,
            "failures": [
                # A detail quotes the draft.
                {"check": one.check.value}
                | ({} if form == "hash" else {"detail": _detail(one.detail, form)})
                for one in outcome.failures
            ],
        },
        "verified": [asdict(one) for one in outcome.verified],
        "ruled_out": [{"model": one.model, "rule": one.rule} for one in outcome.ruled_out],
        "cached": asdict(outcome.cached) if outcome.cached else None,
    }


def _image(image: Image) -> dict[str, Any]:
    return {"sha256": image.sha256, "media_type": image.media_type, "bytes": image.size}


def _passage(passage: Passage) -> dict[str, Any]:
    return {"corpus": passage.corpus, "id": passage.id, "sha256": sha256(passage.text)}


def _text(text: str, form: AuditText) -> dict[str, str]:
    kept = {"sha256": sha256(text)}
    return kept if form == "hash" else kept | {"text": _told(text, form)}


def _told(text: str, form: AuditText) -> str:
    return text if form == "full" else masked(text)


def _detail(text: str, form: AuditText) -> str:
    return text if form == "full" else masked_excerpt(text)
