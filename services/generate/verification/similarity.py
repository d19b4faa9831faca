"""Whether a draft's claims mean what a cited sentence means, by the vectors of embed.

A model of meaning hardly sees a changed number, date or negation, but sees another subject: it
stands beside the checks of words that leave the wording free, never in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.peers.librarian import Librarian
from services.generate.reading.passages import Passage
from services.generate.reading.sentences import split
from services.generate.reading.words import terms
from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.verify import Verdict, reworded

# Least cosine of a claim and the nearest sentence that it cites: 0.5 % of the true sentences of the
# tuning half are below it, and 41 % of the corrupted ones (tests/quality/similarity.py, with the
# embedder that is packaged). Token by token, as late interaction compares, caught less.
MIN_COSINE = 0.8
_NEAREST = 5  # sentences of those cited, by words, that are worth a vector


@dataclass(frozen=True)
class Comparison:
    """A claim and the sentences that it may have been made from. claim: its text."""

    claim: str
    sentences: tuple[str, ...]


async def alike(verdict: Verdict, passages: Sequence[Passage], librarian: Librarian) -> Verdict:
    """The verdict with a failure for each claim that is like none of the sentences that it cites.

    What stands in its passage word for word is not compared. Raises ApiError where embed is no
    help.
    """
    asked = comparisons(verdict, passages)
    texts = list(dict.fromkeys(text for one in asked for text in (one.claim, *one.sentences)))
    if not texts:
        return verdict
    units = await librarian.units(texts)
    place = {text: at for at, text in enumerate(texts)}
    cosines = {
        (one.claim, sentence): float(units[place[one.claim]] @ units[place[sentence]])
        for one in asked
        for sentence in one.sentences
    }
    return replace(verdict, failures=(*verdict.failures, *held(asked, cosines)))


def comparisons(verdict: Verdict, passages: Sequence[Passage]) -> list[Comparison]:
    """What is to be compared: each claim with the sentences that share the most words with it."""
    found = []
    for place, cited in reworded(verdict, passages):
        claim = verdict.claims[place].text
        wanted = frozenset(terms(claim))
        sentences = [sentence.text for one in cited for sentence in split(one.text)]
        sentences.sort(key=lambda one: len(wanted.intersection(terms(one))), reverse=True)
        found.append(Comparison(claim, tuple(sentences[:_NEAREST])))
    return found


def held(asked: Sequence[Comparison], cosines: Mapping[tuple[str, str], float]) -> list[Failure]:
    """A failure for each claim whose nearest sentence is too far. cosines: of claim, sentence."""
    failures = []
    for one in asked:
        near, nearest = max(
            ((cosines[one.claim, sentence], sentence) for sentence in one.sentences),
            default=(0.0, ""),
        )
        if near < MIN_COSINE:
            detail = f"it is not like what it cites ({near:.2f}): {short(one.claim)}"
            failures.append(Failure(Check.SIMILARITY, detail, nearest))
    return failures
