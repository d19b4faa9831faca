"""The extractive writer's choice: which sentences of the evidence make the answer. Pure."""

from collections.abc import Sequence

from services.generate.reading.citations import claims
from services.generate.reading.evidence import Evidence
from services.generate.reading.sentences import Kind
from services.generate.reading.words import PRONOUNS, words

_MOST = 3  # sentences in an answer
# A further sentence must score nearly as well as the best, and say something else. On the questions
# that evidence.py was tuned on, this gap makes 1.7 sentences an answer, which hold the wanted words
# in 93 of 100 (one sentence alone: 84).
_NEAR = 0.3
_SAME_WORDS = 0.6


def choose(evidence: Sequence[Evidence]) -> list[Evidence]:
    """One to three sentences, best first; [] if there is no evidence."""
    chosen: list[Evidence] = []
    for one in evidence:
        if len(chosen) == _MOST or (chosen and one.score < chosen[0].score - _NEAR):
            break
        if all(_differs(one, other) for other in chosen):
            chosen.append(one)
    return chosen


def write(chosen: Sequence[Evidence]) -> str:
    """The chosen sentences in reading order, word for word, each with its marker.

    A sentence that begins with a pronoun is led in by the sentence before it.
    """
    ordered = sorted(chosen, key=lambda one: (one.n, one.sentence.start))
    quoted: list[tuple[str, int]] = []
    for one in ordered:
        opening = next(iter(words(one.sentence.text)), "").lower()
        lead = (_line(one.before, Kind.PROSE), one.n)
        if opening in PRONOUNS and one.before and lead not in quoted:
            quoted.append(lead)
        if (here := (_line(one.sentence.text, one.sentence.kind), one.n)) not in quoted:
            quoted.append(here)
    marked = [f"{text} [{n}]" for text, n in quoted]
    # Side by side where a reader can tell them apart again, else one below the other.
    joined = " ".join(marked)
    apart = [(claim.text, claim.cited) for claim in claims(joined)]
    if apart == [(text, (n,)) for text, n in quoted]:
        return joined
    return "\n\n".join(marked)


def _line(text: str, kind: Kind) -> str:
    return text if kind in (Kind.CODE, Kind.ROW) else " ".join(text.split())


def _differs(one: Evidence, other: Evidence) -> bool:
    here, there = one.words.terms, other.words.terms
    return len(here & there) <= _SAME_WORDS * max(1, min(len(here), len(there)))
