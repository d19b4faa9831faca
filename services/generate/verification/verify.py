"""Verification: is a draft covered by the passages that it cites? Pure functions.

The rules are meant to stop fluent untruths, so they err on the strict side: a true sentence that is
worded too freely fails, too, and the answer is then written from the sources' own sentences.

A claim (a sentence of the draft) stands if one sentence of a cited passage says it. That sentence
is read with what it depends on: the passage's title, the heading above it and, where it begins with
a pronoun, the sentence before. What is compared is in `checks`, a file for each check; dates,
numbers and contractions are compared as `checks.plain` writes them.

A profile says which checks are made. `STRICT` makes all of these, sentence by sentence. `LIGHT`
reads a claim against the whole passage: markers, quotes, numbers and dates must be right, wording
is free. `OFF` only takes out markers of passages that are not there. What a model judges comes
after these, see `jury`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.reading.citations import Claim, claims
from services.generate.reading.passages import Passage
from services.generate.reading.sentences import Kind
from services.generate.reading.words import numbers as numbers_of
from services.generate.reading.words import one_line, share, stem, terms, weights, without_markers
from services.generate.verification.checks import (
    citations,
    dates,
    leak,
    length,
    names,
    negation,
    numbers,
    order,
    quotes,
    refusal,
    support,
)
from services.generate.verification.checks.compared import Known, Page, Said, Source, page, said
from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.checks.profile import STRICT, Profile

_HEDGING = """according sources source passages passage provided follows following answer
    question information based documents document text texts context states say says given
    summary here key points"""
_HEDGES = frozenset(stem(word) for word in _HEDGING.split())
_PAGE = r"(?:sources?|passages?|documents?|articles?|pages?|sections?|information|texts?|contexts?)"
_PREFACE = re.compile(
    rf"^(?:according to|based on|as (?:stated|mentioned) in|from) (?:the |these |this |your )?"
    rf"(?:provided |given |following )?{_PAGE}(?: provided| given)?[,:]\s*"
    rf"|^(?:the|this|these) {_PAGE} (?:says?|states?|mentions?|notes?|explains?|reports?) that\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What verification found. claims: the draft's, citations completed; failures: in order."""

    claims: tuple[Claim, ...]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures


def verify(
    draft: str,
    passages: Sequence[Passage],
    *,
    question: str = "",
    secrets: Sequence[str] = (),
    profile: Profile = STRICT,
) -> Verdict:
    """Check a draft against the passages.

    question: what was asked; its words count for nothing unless a passage has them, too.
    secrets: strings of the prompt that must not show. profile: which checks are made.
    A draft that is too long is not read: it has no claims.
    """
    if too_long := length.held(draft):
        return Verdict((), tuple(too_long))
    if not profile.checks:
        kept = tuple(_without_invented(claims(draft), passages))
        failures = leak.found(draft, secrets)
        if not any(claim.text for claim in kept):
            failures.append(Failure(Check.EMPTY, "the draft says nothing"))
        return Verdict(kept, tuple(failures))
    pages = {passage.n: page(passage) for passage in passages}
    known = Known(
        weights(source.terms for one in pages.values() for source in one.sources),
        frozenset(terms(question)).union(*(one.whole.terms for one in pages.values())),
    )
    found = [claim for claim in claims(draft) if claim.kind is not Kind.HEADING]
    if Check.CITATION not in profile.checks:
        found = _without_invented(found, passages)
    checked = [_check(claim, pages, known, profile) for claim in found]
    completed = tuple(claim for claim, _ in checked)
    failures = leak.found(draft, secrets) + [one for _, several in checked for one in several]
    if not any(claim.cited for claim in completed) and not failures:
        failures = [Failure(Check.EMPTY, "the draft says nothing that could be checked")]
    held = profile.checks | {Check.LEAK, Check.EMPTY}  # which no profile lets through
    return Verdict(completed, tuple(one for one in failures if one.check in held))


def reworded(
    verdict: Verdict, passages: Sequence[Passage]
) -> list[tuple[int, tuple[Passage, ...]]]:
    """The claims that no passage which they cite has word for word: their places, and what they
    cite, its own marks left out."""
    texts = {one.n: replace(one, text=without_markers(one.text)) for one in passages}
    found = []
    for place, claim in enumerate(verdict.claims):
        cited = tuple(texts[n] for n in claim.cited)
        if cited and not _is_verbatim(claim.text, cited):
            found.append((place, cited))
    return found


def _without_invented(found: Sequence[Claim], passages: Sequence[Passage]) -> list[Claim]:
    there = {passage.n for passage in passages}
    return [replace(one, cited=tuple(n for n in one.cited if n in there)) for one in found]


def _check(
    claim: Claim, pages: Mapping[int, Page], known: Known, profile: Profile
) -> tuple[Claim, list[Failure]]:
    """A claim with its citations completed, and what is wrong with it."""
    if not claim.cited and _is_hedge(claim):
        return claim, []
    if invented := citations.exist(claim, pages.keys()):
        return claim, invented
    if claim.cited:
        failures = _faults(claim, [pages[n] for n in claim.cited], known, profile)
    else:
        failures = []
        for one in _nearest(claim, pages.values(), known, profile):
            faults = _faults(claim, [one], known, profile)
            if not faults:
                return replace(claim, cited=(one.n,)), []
            failures = failures or faults
        failures = [
            Failure(Check.CITATION, f"no passage says this: {short(claim.text)}"),
            *failures,
        ]
    if failures or not (profile.by_sentence or _is_verbatim(claim.text, pages.values())):
        failures = [*refusal.found(claim.text), *failures]
    return claim, failures


def _nearest(claim: Claim, pages: Iterable[Page], known: Known, profile: Profile) -> Iterator[Page]:
    """The pages that may say a claim without a marker, best first, and one in any case.

    What has fewer of its words than a check wants of a page, or of one sentence of it, need not be
    read: a draft of many sentences beside many passages would take seconds.
    """
    least = 0.0
    if Check.CITATION in profile.checks:
        least = citations.MIN_RELATED
    if profile.by_sentence:
        least = support.MIN_SUPPORT
    ranked = sorted(
        ((_covered(claim, one, known), one) for one in pages),
        key=lambda pair: pair[0],
        reverse=True,
    )
    for place, (covered, one) in enumerate(ranked):
        if place == 0 or covered >= least:
            yield one


def _covered(claim: Claim, one: Page, known: Known) -> float:
    spoken = said(claim.text, _body(claim.text, [one])).terms
    return share(spoken, one.whole.terms, known.table)


def _faults(claim: Claim, pages: Sequence[Page], known: Known, profile: Profile) -> list[Failure]:
    """What keeps these pages from saying the claim, of what the profile checks; [] if they do."""
    one = said(claim.text, _body(claim.text, pages))
    if profile.by_sentence:
        failures = _said_by_a_sentence(one, pages, known, profile)
    else:
        failures = quotes.held(one, pages)
        attempts = [numbers.held(one, each.whole) + dates.held(one, each.whole) for each in pages]
        everywhere = set[str].intersection(*({one.detail for one in each} for each in attempts))
        failures += [failure for failure in attempts[0] if failure.detail in everywhere]
    if one.terms:
        failures += citations.related(one, pages, known.table)
    return [failure for failure in failures if failure.check in profile.checks]


def _said_by_a_sentence(
    one: Said, pages: Sequence[Page], known: Known, profile: Profile
) -> list[Failure]:
    if not one.terms:  # "They did.": the words around it say what it means
        if _is_verbatim(one.text, pages):
            return []
        detail = f"it has no words that could be checked: {short(one.text)}"
        return [Failure(Check.SUPPORT, detail)]
    failures = quotes.held(one, pages) + support.borrowed(one, pages, known)
    ranked = sorted(
        (
            (share(one.terms, source.terms, known.table), source)
            for each in pages
            for source in each.sources
        ),
        key=lambda pair: pair[0],
        reverse=True,
    )
    if not ranked:
        return [*failures, Failure(Check.SUPPORT, "the passage holds no sentence")]
    best: list[Failure] = []
    most = -1.0
    for covered, source in ranked:
        if best and covered < support.MIN_SUPPORT:
            break
        faults = [
            fault
            for fault in _held_against(one, source, pages, known)
            if fault.check in profile.checks
        ]
        if not faults:
            return failures
        # Told is what keeps that one from saying it which has most of the words itself.
        if (own := share(one.terms, source.own, known.table)) > most:
            best, most = faults, own
    return failures + best


def _held_against(one: Said, source: Source, pages: Sequence[Page], known: Known) -> list[Failure]:
    return [
        *support.supported(one, source, known.table),
        *numbers.held(one, source),
        *numbers.counting(one, source),
        *dates.held(one, source),
        *names.held(one, source, pages),
        *names.in_place(one, source, pages),
        *order.held(one, source),
        *negation.held(one, source),
    ]


def _body(text: str, pages: Sequence[Page]) -> str:
    """What a claim says without "According to the passage," or "The article on X says that"."""
    titles = "|".join(re.escape(one.title) for one in pages if one.title)
    if titles:
        about = rf" (?:on|about|titled|called) [\"\u201c]?(?:{titles})[\"\u201d]?(?=[,: ])"
        named = rf"^(?P<lead>.{{0,40}}?\b{_PAGE}){about}"
        text = re.sub(named, r"\g<lead>", text, count=1, flags=re.IGNORECASE)
    return _PREFACE.sub("", text)


def _is_verbatim(text: str, pages: Iterable[Page | Passage]) -> bool:
    return any(one_line(text) in one_line(one.text) for one in pages)


def _is_hedge(claim: Claim) -> bool:
    """``According to the sources:`` and the like, which says nothing of its own."""
    spoken = set(terms(claim.text))
    return bool(spoken) and spoken <= _HEDGES and not numbers_of(claim.text)
