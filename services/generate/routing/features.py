"""Everything that a routing decision is made from, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.generate.reading.passages import Signals
from services.generate.reading.question import QuestionFeatures, features
from services.generate.reading.sensitivity import Sensitive
from services.generate.reading.tokens import estimated_tokens
from services.generate.routing.language import language
from services.generate.routing.learned.model import Opinion

# Kept back from a writer's time, so that the extractive answer still comes before the deadline.
RESERVE_MS = 1000.0


@dataclass(frozen=True)
class RoutingFeatures:
    """A question, what was found for it, and what its caller allows.

    text: the question. tokens: its length, estimated. language: ISO 639-1, "" where unknown.
    turns: messages of the user in the conversation, this one included. needs: what a model must be
    able to do beyond text. flagged: the caller says that it is complex.
    confidence: of the evidence, 0..1, see evidence.py.
    mark: the data class that the caller names, None for none. corpora: of the passages. found:
    what is sensitive in the question and the passages.
    requested: a tier, a model, or None for the router's choice. tiers: those that the caller
    allows; key_tiers: those that the caller's key does; None for all. budget: nano-dollars for
    the answer, None for no limit.
    prompt_tokens, draft_tokens: of the longest prompt and draft, estimated, but for the `images`
    of the prompt, which each model counts in its own way. remaining_ms: until the deadline.
    served: tiers whose first writer is a server. embedded: the models that run in this process:
    they write plain text alone.
    success: of each tier how likely its drafts pass verification for such questions, 0..1, see
    history.py. opinion: the learned router's, None where there is none.
    """

    text: str
    question: QuestionFeatures
    signals: Signals
    confidence: float
    tokens: int = 0
    language: str = ""
    turns: int = 1
    needs: frozenset[str] = frozenset()
    flagged: bool = False
    mark: str | None = None
    corpora: frozenset[str] = frozenset()
    found: frozenset[Sensitive] = frozenset()
    requested: str | None = None
    tiers: frozenset[str] | None = None
    key_tiers: frozenset[str] | None = None
    budget: int | None = None
    prompt_tokens: int = 0
    draft_tokens: int = 0
    images: int = 0
    remaining_ms: float = float("inf")
    served: frozenset[str] = frozenset()
    embedded: frozenset[str] = frozenset()
    success: Mapping[str, float] = field(default_factory=dict)
    opinion: Opinion | None = None


def features_of(question: str, signals: Signals, confidence: float) -> RoutingFeatures:
    """What a question is by itself, with what was found for it; nothing limits who may write."""
    return RoutingFeatures(
        text=question,
        question=features(question),
        signals=signals,
        confidence=confidence,
        tokens=estimated_tokens([question]),
        language=language(question),
    )
