"""What a router may choose between, and the bars it goes by."""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """The writers, cheapest first."""

    UTILITY = "utility"
    REASONING = "reasoning"


@dataclass(frozen=True)
class Policy:
    """The bars of routing. The defaults of the first two were chosen as evidence.py describes.

    min_confidence: from here on a sentence of the sources is taken for the answer of a lookup.
    min_relevance: below this confidence the sources do not even speak of what a question that wants
    an explanation, a comparison or a summary is about. Both 0..1.
    long_question: words from which a question is more than a lookup.
    strong_reasoning: tier reasoning reads better than a match of words and vectors does: a served
    model, not the small embedded one. Then it is asked where the evidence is weak.
    """

    min_confidence: float
    min_relevance: float
    long_question: int = 40
    strong_reasoning: bool = False
