"""An answer and how it came about, and what is gathered on the way to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from services.generate.policy.models import Model
from services.generate.policy.pricing import Allowance, cost
from services.generate.policy.schema import NOBODY, EscalationReason
from services.generate.prompting.chat import ToolCall
from services.generate.reading.citations import Answer
from services.generate.routing.decision import Reason, RuledOut
from services.generate.routing.history import Verified
from services.generate.tiers.endpoint import Endpoint
from services.generate.tiers.meter import Meter
from services.generate.verification.checks.failure import Failure


@dataclass(frozen=True)
class Hop:
    """An escalation: the answer went on from a tier to another, None for the last resort.

    checks: those that the draft failed, where that was the reason.
    """

    reason: EscalationReason
    source: str
    target: str | None
    checks: tuple[str, ...] = ()


class Happened(StrEnum):
    """What may happen to an answer after its decision, as its reasons name it."""

    HEDGED = "hedged"
    ENDPOINT_FAILED = "endpoint_failed"
    OUT_OF_TIME = "out_of_time"
    DECLINED = "declined"
    VERIFICATION_FAILED = "verification_failed"
    SIMILARITY_LEFT_OUT = "similarity_left_out"
    GROUNDING_LEFT_OUT = "grounding_left_out"
    HOP_SKIPPED = "hop_skipped"
    SHOWN_UNVERIFIED = "shown_unverified"
    TEXT_LEFT_OUT = "text_left_out"
    FORM_VERIFIED = "form_verified"
    IMAGES_UNSEEN = "images_unseen"


class Ended(StrEnum):
    """How an attempt ended. stopped: nobody waited any more."""

    DRAFTED = "drafted"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Attempt:
    """A model that was asked for a draft, and what that took.

    model: the policy's name of it.
    exact: whether the tokens are counted by who used them, not estimated here.
    cost_nano_dollars: None for a model without a price.
    """

    model: str
    endpoint: str
    ended: Ended
    prompt_tokens: int
    completion_tokens: int
    exact: bool
    cost_nano_dollars: int | None


class Spending:
    """The attempts at one answer, kept by who has to settle them whatever becomes of it."""

    def __init__(self) -> None:
        self._done: list[Attempt] = []
        self._open: dict[Meter, tuple[str, Model, str]] = {}

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All of them, in order; those that are still at work as if they were stopped now."""
        return (*self._done, *(self._attempt(meter, Ended.STOPPED) for meter in self._open))

    def bound(self, allowance: Allowance) -> int | None:
        """Nano-dollars that all of them cost at most; None where one has no price.

        One that is at work may still write the longest draft.
        """
        begun = (
            max(cost(model, meter.prompt_tokens, meter.completion_tokens) or 0, longest)
            if (longest := allowance.longest(model)) is not None
            else None
            for meter, (_, model, _) in self._open.items()
        )
        return _sum((*(one.cost_nano_dollars for one in self._done), *begun))

    def begin(self, name: str, model: Model, endpoint: Endpoint) -> Meter:
        """The meter of the next attempt, which `end` ends."""
        meter = Meter()
        self._open[meter] = (name, model, endpoint.name)
        return meter

    def end(self, meter: Meter, ended: Ended) -> None:
        """The attempt of that meter is over."""
        self._done.append(self._attempt(meter, ended))
        del self._open[meter]

    def _attempt(self, meter: Meter, ended: Ended) -> Attempt:
        name, model, endpoint = self._open[meter]
        read, written = meter.prompt_tokens, meter.completion_tokens
        price = cost(model, read, written)
        return Attempt(name, endpoint, ended, read, written, meter.exact, price)


class Found(StrEnum):
    """How an answer that was given before was found: by the same words, or by the same meaning."""

    EXACT = "exact"
    SEMANTIC = "semantic"


@dataclass(frozen=True)
class Cached:
    """That an answer was given before. record: the place of that answer in the audit trail,
    ``NUMBER:HASH``; None where there is no trail."""

    found: Found
    record: str | None


@dataclass(frozen=True)
class Outcome:
    """An answer and how it came about.

    tier, endpoint, model: who wrote what is shown; tier is the one that was asked first where
    nobody was. answered: False where the text only says that the sources do not answer.
    reasons: the decision's and what happened after it. failures: of the first draft that failed its
    checks; passed: whether there was none. escalated_from: ``tier:endpoint`` of that draft, None
    where it is the answer itself, as it was shown while it was written; where none failed, of the
    first writer that came to no draft or found no answer. verified: the tiers' drafts that were
    verified, in order; one that found no answer counts as failed where another tier was asked for
    that, and what the profile ``off`` lets through and the last resort do not count. hops: the
    escalations, in order. ruled_out: models that would have been asked but for the policy or the
    budget. degraded: writers that were down. attempts: what was asked of whom. shown: whether the
    text went out while it was written. tool_calls, finish_reason: as the model ended. draft_ms,
    verify_ms. cached: where from, if the text was not written this time.
    """

    answer: Answer
    tier: str
    endpoint: str
    model: str
    answered: bool
    reasons: tuple[Reason, ...]
    passed: bool
    failures: tuple[Failure, ...]
    escalated_from: str | None
    verified: tuple[Verified, ...]
    hops: tuple[Hop, ...]
    ruled_out: tuple[RuledOut, ...]
    degraded: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    draft_ms: float
    verify_ms: float
    shown: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: Literal["stop", "length", "tool_calls"] = "stop"
    cached: Cached | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens that language models read, failed attempts included."""
        return sum(one.prompt_tokens for one in self.attempts)

    @property
    def completion_tokens(self) -> int:
        """Tokens that language models wrote, failed attempts included."""
        return sum(one.completion_tokens for one in self.attempts)

    @property
    def cost_nano_dollars(self) -> int | None:
        """What all attempts cost; None where one of them has no price."""
        return total_cost(self.attempts)


def total_cost(attempts: Sequence[Attempt]) -> int | None:
    """Nano-dollars of all of them; None where one has no price."""
    return _sum([one.cost_nano_dollars for one in attempts])


def _sum(costs: Sequence[int | None]) -> int | None:
    known = [one for one in costs if one is not None]
    return sum(known) if len(known) == len(costs) else None


@dataclass
class Trace:
    """What is gathered on the way to an outcome. failures, escalated_from, verified: see `Outcome`.

    asked: who was asked for a draft, in order.
    """

    reasons: list[Reason]
    spending: Spending
    degraded: list[str] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    ruled_out: list[RuledOut] = field(default_factory=list)
    asked: list[Endpoint] = field(default_factory=list)
    failures: tuple[Failure, ...] = ()
    escalated_from: str | None = None
    verified: list[Verified] = field(default_factory=list)
    draft_ms: float = 0.0
    verify_ms: float = 0.0

    def tell(self, what: Happened, seen: str) -> None:
        """Add a reason. seen: of what happened, for people."""
        self.reasons.append(Reason(what, 0.0, seen))

    def came_to_nothing(self, writer: str) -> None:
        """A writer, ``tier:endpoint``, failed without a draft, or found no answer."""
        self.escalated_from = self.escalated_from or writer

    def failed(self, failures: tuple[Failure, ...], writer: str | None) -> None:
        """A draft failed its checks. writer: ``tier:endpoint``; None for a draft that was shown."""
        if not self.failures:
            self.failures, self.escalated_from = failures, writer

    def outcome(
        self,
        answer: Answer,
        tier: str,
        endpoint: Endpoint | None,
        model: str,
        *,
        answered: bool,
        shown: bool = False,
        tool_calls: tuple[ToolCall, ...] = (),
        finish_reason: Literal["stop", "length", "tool_calls"] = "stop",
    ) -> Outcome:
        """How it ended: `answer` is what `endpoint` of `tier` wrote with `model`."""
        return Outcome(
            answer=answer,
            tier=tier,
            endpoint=endpoint.name if endpoint else NOBODY,
            model=model,
            answered=answered,
            reasons=tuple(self.reasons),
            passed=not self.failures,
            failures=self.failures,
            escalated_from=self.escalated_from,
            verified=tuple(self.verified),
            hops=tuple(self.hops),
            ruled_out=tuple(self.ruled_out),
            degraded=tuple(self.degraded),
            attempts=self.spending.attempts,
            draft_ms=self.draft_ms,
            verify_ms=self.verify_ms,
            shown=shown,
            tool_calls=tool_calls,
            finish_reason=finish_reason,
        )
