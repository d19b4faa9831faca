"""Which tier answers: a pure function of the question, the evidence and the policy."""

from dataclasses import dataclass

from services.generate.answer.passages import Signals
from services.generate.routing.features import Intent, QuestionFeatures
from services.generate.routing.policy import Policy, Tier


@dataclass(frozen=True)
class RoutingFeatures:
    """All that a decision is made from. confidence: of the evidence, 0..1, see evidence.py."""

    question: QuestionFeatures
    signals: Signals
    confidence: float
    requested: Tier | None = None


@dataclass(frozen=True)
class Route:
    """Where a question goes. tier: None where no writer is asked, since there is nothing to say.

    reasons: each ``name: what was seen``, in the order in which they counted.
    """

    tier: Tier | None
    reasons: tuple[str, ...]


def route(features: RoutingFeatures, policy: Policy) -> Route:
    """Choose the cheapest tier that can answer. An explicit tier wins over everything."""
    question, confidence = features.question, features.confidence
    if features.signals.documents == 0:
        return Route(None, ("no_passages: the search found nothing",))
    if features.requested is not None:
        return Route(features.requested, (f"requested: model {features.requested}",))

    reasons = [f"intent: {question.intent}"]
    lookup = question.intent is Intent.LOOKUP
    if lookup and question.words >= policy.long_question:
        reasons.append(f"long_question: {question.words} words, {policy.long_question} or more")
        lookup = False
    bar = policy.min_confidence if lookup else policy.min_relevance
    seen = (
        f"confidence {confidence:.2f}, bar {bar:.2f}; top score {features.signals.top_score:.2f}, "
        f"margin {features.signals.margin:.2f}, agreement {features.signals.agreement:.2f}, "
        f"coverage {features.signals.coverage:.2f}"
    )
    if confidence >= bar:
        reasons.append(f"good_evidence: {seen}")
        return Route(Tier.UTILITY if lookup else Tier.REASONING, tuple(reasons))
    reasons.append(f"weak_evidence: {seen}")
    if policy.strong_reasoning:
        return Route(Tier.REASONING, tuple(reasons))
    return Route(None, tuple(reasons))
