"""Every marker names a passage that there is, and one that speaks of the claim."""

from collections.abc import Collection, Mapping, Sequence

from services.generate.reading.citations import Claim
from services.generate.reading.words import share
from services.generate.verification.checks.compared import Page, Said
from services.generate.verification.checks.failure import Check, Failure, short

# A cited passage that has less than this of the claim's words has nothing to do with it.
MIN_RELATED = 0.3


def exist(claim: Claim, passages: Collection[int]) -> list[Failure]:
    """Markers of passages that are not there."""
    return [
        Failure(Check.CITATION, f"[{n}] is not among the passages: {short(claim.text)}")
        for n in claim.cited
        if n not in passages
    ]


def related(said: Said, pages: Sequence[Page], table: Mapping[str, float]) -> list[Failure]:
    """Cited passages that have next to none of the claim's words."""
    return [
        Failure(Check.CITATION, f"[{page.n}] does not speak of: {short(said.text)}")
        for page in pages
        if share(said.terms, page.whole.terms, table) < MIN_RELATED
    ]
