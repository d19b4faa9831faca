"""Verification: is a draft covered by the passages that it cites? Pure functions.

The rules are meant to stop fluent untruths, so they err on the strict side: a true sentence that is
worded too freely fails, too, and the answer is then written from the sources' own sentences.

A claim (a sentence of the draft) stands if one sentence of a cited passage says it. That sentence
is read with what it depends on: the passage's title, the heading above it and, where it begins with
a pronoun, the sentence before. What is compared is in `checks`, a file for each check; dates,
numbers and contractions are compared as `checks.plain` writes them.

A profile says which checks are made. `STRICT` makes all of them, sentence by sentence. `LIGHT`
reads a claim against the whole passage: markers, quotes, numbers and dates must be right, wording
is free. `OFF` only takes out markers of passages that are not there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.answer.checks import (
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
from services.generate.answer.checks.finding import Check, Failure, short
from services.generate.answer.checks.reading import Known, Page, Said, Source, page, said
from services.generate.answer.citations import Claim, claims
from services.generate.answer.passages import Passage
from services.generate.answer.sentences import Kind
from services.generate.answer.words import numbers as numbers_of
from services.generate.answer.words import share, stem, terms, weights

__all__ = ["LIGHT", "OFF", "PROFILES", "STRICT", "Check", "Failure", "Profile", "Verdict", "verify"]

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
class Profile:
    """Which checks are made. by_sentence: whether one sentence must say what a claim says."""

    name: str
    checks: frozenset[Check]
    by_sentence: bool


OFF = Profile("off", frozenset(), by_sentence=False)
LIGHT = Profile(
    "light",
    frozenset(Check) - {Check.SUPPORT, Check.NAME, Check.ORDER, Check.POLARITY},
    by_sentence=False,
)
STRICT = Profile("strict", frozenset(Check), by_sentence=True)
PROFILES: Mapping[str, Profile] = {one.name: one for one in (OFF, LIGHT, STRICT)}


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
    if profile is OFF:
        kept = tuple(_without_invented(claims(draft), passages))
        said = any(claim.text for claim in kept)
        return Verdict(kept, () if said else (Failure(Check.EMPTY, "the draft says nothing"),))
    pages = {passage.n: page(passage) for passage in passages}
    known = Known(
        weights(source.terms for one in pages.values() for source in one.sources),
        frozenset(terms(question)).union(*(one.whole.terms for one in pages.values())),
    )
    found = [claim for claim in claims(draft) if claim.kind is not Kind.HEADING]
    checked = [_check(claim, pages, known, profile) for claim in found]
    completed = tuple(claim for claim, _ in checked)
    failures = leak.found(draft, secrets) + [one for _, several in checked for one in several]
    if not any(claim.cited for claim in completed) and not failures:
        failures = [Failure(Check.EMPTY, "the draft says nothing that could be checked")]
    return Verdict(completed, tuple(one for one in failures if one.check in profile.checks))


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
        spoken = frozenset(terms(claim.text))
        nearest = sorted(
            pages.values(),
            key=lambda one: share(spoken, one.whole.terms, known.table),
            reverse=True,
        )
        attempts = [(one, _faults(claim, [one], known, profile)) for one in nearest]
        for one, failures in attempts:
            if not failures:
                return replace(claim, cited=(one.n,)), []
        failures = [
            Failure(Check.CITATION, f"no passage says this: {short(claim.text)}"),
            *(attempts[0][1] if attempts else ()),
        ]
    if failures or not (profile.by_sentence or _is_verbatim(claim.text, pages.values())):
        failures = [*refusal.found(claim.text), *failures]
    return claim, failures


def _faults(claim: Claim, pages: Sequence[Page], known: Known, profile: Profile) -> list[Failure]:
    """What keeps these pages from saying the claim, of what the profile checks; [] if they do."""
    one = said(claim.text, _body(claim.text, pages))
    if profile.by_sentence:
        failures = _said_by_a_sentence(one, pages, known)
    else:
        failures = quotes.held(one, pages)
        attempts = [numbers.held(one, each.whole) + dates.held(one, each.whole) for each in pages]
        everywhere = set[str].intersection(*({one.detail for one in each} for each in attempts))
        failures += [failure for failure in attempts[0] if failure.detail in everywhere]
    if one.terms:
        failures += citations.related(one, pages, known.table)
    return [failure for failure in failures if failure.check in profile.checks]


def _said_by_a_sentence(one: Said, pages: Sequence[Page], known: Known) -> list[Failure]:
    if not one.terms:  # "They did.": the words around it say what it means
        if _is_verbatim(one.text, pages):
            return []
        detail = f"it has no words that could be checked: {short(one.text)}"
        return [Failure(Check.SUPPORT, detail)]
    failures = quotes.held(one, pages) + support.borrowed(one, pages, known)
    ranked = sorted(
        (source for each in pages for source in each.sources),
        key=lambda source: share(one.terms, source.terms, known.table),
        reverse=True,
    )
    if not ranked:
        return [*failures, Failure(Check.SUPPORT, "the passage holds no sentence")]
    best: list[Failure] = []
    most = -1.0
    for source in ranked:
        enough = share(one.terms, source.terms, known.table) >= support.MIN_SUPPORT
        if best and not enough:
            break
        faults = _held_against(one, source, pages, known)
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


def _is_verbatim(text: str, pages: Iterable[Page]) -> bool:
    return any(_in_one_line(text) in _in_one_line(one.text) for one in pages)


def _in_one_line(text: str) -> str:
    straight = text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    return " ".join(straight.lower().split())


def _is_hedge(claim: Claim) -> bool:
    """``According to the sources:`` and the like, which says nothing of its own."""
    spoken = set(terms(claim.text))
    return bool(spoken) and spoken <= _HEDGES and not numbers_of(claim.text)
