"""The claim's words are those of one source sentence."""

from collections.abc import Mapping, Sequence

from services.generate.reading.words import share
from services.generate.verification.checks.compared import Known, Page, Said, Source
from services.generate.verification.checks.failure import Check, Failure, short

# Least share of a claim's content words, by weight, that its source sentence must have.
MIN_SUPPORT = 0.7
# Least share that must be in that sentence itself, not in what it is read with: or else "It is
# fast.", read with the sentence before, would say that one without its "not".
_MIN_OWN = 0.5
# Most of a claim's words, by weight, that may come from the question or from another passage.
_MAX_BORROWED = 0.1


def supported(said: Said, source: Source, table: Mapping[str, float]) -> list[Failure]:
    """Too few of the claim's words are in the source sentence, or in it and what it leans on."""
    support = share(said.terms, source.terms, table)
    if support < MIN_SUPPORT:
        detail = f"{support:.0%} of its words are in a source sentence: {short(said.text)}"
        return [Failure(Check.SUPPORT, detail, source.text)]
    # Or else a clause without a "not" would vouch for the clause beside it that has one.
    if share(said.terms, source.own, table) < _MIN_OWN or said.terms & source.rest:
        detail = f"no one source sentence says this itself: {short(said.text)}"
        return [Failure(Check.SUPPORT, detail, source.text)]
    return []


def borrowed(said: Said, pages: Sequence[Page], known: Known) -> list[Failure]:
    """Words that the cited passages lack and the question, or another passage, has.

    Other words may be the writer's own; with these, a writer makes one subject do what another did.
    """
    taken = (said.terms & known.terms).difference(*(page.whole.terms for page in pages))
    if 1 - share(said.terms, said.terms - taken, known.table) <= _MAX_BORROWED:
        return []
    listed = ", ".join(f"'{term}'" for term in sorted(taken))
    detail = f"{listed} of the question or another passage is not in this one: {short(said.text)}"
    return [Failure(Check.SUPPORT, detail)]
