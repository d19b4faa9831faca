"""What a question looks like: its intent and the kind of thing it asks for. Pure functions.

Plain patterns, so that a decision can be explained in words; they read the question alone.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Intent(StrEnum):
    """What the asker wants done with the sources."""

    LOOKUP = "lookup"
    EXPLAIN = "explain"
    COMPARE = "compare"
    SUMMARISE = "summarise"


class AnswerKind(StrEnum):
    """What an answering sentence is likely to hold."""

    PERSON = "person"
    TIME = "time"
    PLACE = "place"
    NUMBER = "number"
    ANY = "any"


@dataclass(frozen=True)
class QuestionFeatures:
    """A question as a router sees it. words: how many it has."""

    intent: Intent
    asks_for: AnswerKind
    words: int


_COMPARE = re.compile(
    r"\b(compare[ds]?|comparison|contrast|differences?|differs?|versus|vs\.?|pros and cons|"
    r"advantages? (?:and|or) disadvantages?|better than|trade-?offs?)\b"
)
_SUMMARISE = re.compile(
    r"\b(summari[sz]e|summary|overview|outline|gist|key points|main points|tl;?dr|in short)\b"
)
_EXPLAIN = re.compile(
    r"^\W*(?:why|explain|describe|discuss|elaborate|tell me (?:more )?about)\b|"
    r"\b(?:explain|walk me through|how come|what (?:are|is|were|was) the (?:reasons?|causes?|"
    r"consequences|implications|effects))\b|"
    r"^\W*how (?:does|do|did|can|could|should|would|is|are|was|were)\b"
)
# "How many", "how old", "how is X called" ask for one thing, whatever they begin with.
_ONE_THING = re.compile(r"\bhow (?:many|much|long|old|far|often|large|big|tall|high|fast|deep)\b")
_KINDS = (
    (AnswerKind.NUMBER, _ONE_THING),
    (
        AnswerKind.NUMBER,
        re.compile(
            r"\b(?:what|which) (?:(?:is|was|are|were) the )?(?:\w+ ){0,2}?"
            r"(?:number|amount|percentage|percent|population|price|cost|size|port|age|rate|default)\b"
        ),
    ),
    (
        AnswerKind.TIME,
        re.compile(
            r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century|decade|time|season)\b"
        ),
    ),
    (AnswerKind.PERSON, re.compile(r"\bwho(?:m|se)?\b")),
    (
        AnswerKind.PLACE,
        re.compile(
            r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|town|region|continent)\b"
        ),
    ),
)


def features(question: str) -> QuestionFeatures:
    """The features of a question, by its words alone."""
    text = question.lower().replace("\u2019", "'")
    return QuestionFeatures(_intent(text), _asks_for(text), len(text.split()))


def _intent(text: str) -> Intent:
    if _COMPARE.search(text):
        return Intent.COMPARE
    if _SUMMARISE.search(text):
        return Intent.SUMMARISE
    if _EXPLAIN.search(text) and not _ONE_THING.search(text):
        return Intent.EXPLAIN
    return Intent.LOOKUP


def _asks_for(text: str) -> AnswerKind:
    for kind, pattern in _KINDS:
        if pattern.search(text):
            return kind
    return AnswerKind.ANY
