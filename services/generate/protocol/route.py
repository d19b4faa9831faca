"""A decision told without an answer."""

from services.generate.protocol.answer import RuledOutBody, SignalsBody
from services.generate.protocol.base import Own


class ReasonBody(Own):
    """What counted in a decision; weight: in a score, 1 for what decided alone, 0 if only told."""

    name: str
    weight: float
    seen: str


class StepBody(Own):
    """A tier, with its models that may write: the first, then its fallbacks."""

    tier: str
    models: list[str]


class MadeBody(Own):
    """A decision in short. refused: the code that the caller is told instead of an answer."""

    tier: str | None
    model: str | None
    rule: str | None
    refused: str | None


class RouteAnswer(Own):
    """Where a question would go, and why. See `routing.decision.Decision`.

    declines: the sources don't say, so that no writer would be asked. confidence: of the evidence.
    """

    tier: str | None
    model: str | None
    version: str
    fallbacks: list[str]
    escalation: list[StepBody]
    last_resort: str | None
    declines: bool
    checks: str
    rule: str
    data_class: str
    data_class_source: str
    policy: str
    reasons: list[ReasonBody]
    ruled_out: list[RuledOutBody]
    confidence: float
    signals: SignalsBody
    degraded: list[str]
    timings_ms: dict[str, float]
