"""Verification: is a draft covered by the passages that it cites? Pure functions.

The rules are meant to stop fluent untruths, so they err on the strict side: a true sentence that is
worded too freely fails, too, and the answer is then written from the sources' own sentences.

A claim (a sentence of the draft) stands if one sentence of a cited passage says it. That sentence
is read with what it depends on: the passage's title, the heading above it and, where it begins with
a pronoun, the sentence before. Checked are:

* ``citation``: every marker names a passage that exists, and every claim has one; a claim without
  a marker is given that of a passage that supports it.
* ``support``: share of the claim's content words (stemmed, weighted by rarity) in the source.
  Words that the cited passage lacks may be the writer's own, but not taken from the question or
  another passage: so a writer makes one subject do what another did.
* ``number``: every number is in the source sentence, and counts the same thing there; ``name``:
  every capitalised word is in the passage; their order is the source's (``order``: who did what to
  whom).
* ``polarity``: as many negations as the source, of the same words, and no word turned into its
  opposite or into one of another force (must, may).
* ``quote``: what stands in quotation marks is in the passage, word for word.
* ``leak``: nothing of the prompt's own scaffolding.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from services.generate.answer.citations import Claim, claims
from services.generate.answer.passages import Passage
from services.generate.answer.sentences import Kind, Sentence, split
from services.generate.answer.words import (
    FORCES,
    STOP_WORDS,
    amounts,
    names,
    negated,
    numbers,
    opposites,
    quotes,
    share,
    stem,
    terms,
    weights,
    without_markers,
    words,
)

# Least share of a claim's content words that its source sentence must have.
MIN_SUPPORT = 0.7
# Most of a claim's words, by weight, that may come from the question or from another passage.
_MAX_BORROWED = 0.1
# Words behind a number or a negation in which the source must have what the claim has next: a word
# or two may stand between.
_REACH_OF_NUMBER = 3
_REACH_OF_NEGATION = 2
# Least share that must be in that sentence itself, not in what it is read with: or else "It is
# fast.", read with the sentence before, would say that one without its "not".
_MIN_OWN = 0.5
# A cited passage that has less than this of the claim's words has nothing to do with it.
_MIN_RELATED = 0.3
_LEANING = "it its he his she her they their this that these those such both here there"
_PRONOUNS = frozenset(_LEANING.split())
_HEDGING = """according sources source passages passage provided follows following answer
    question information based documents document text texts context states say says given
    summary here key points"""
_HEDGES = frozenset(stem(word) for word in _HEDGING.split())
_PREFACE = re.compile(
    r"^(?:according to|based on|as (?:stated|mentioned) in|from) (?:the |these |your )?"
    r"(?:provided |given |following )?(?:sources?|passages?|documents?|information|text|context)"
    r"(?: provided| given)?[,:]\s*",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[;:]\s|\s[-\u2013\u2014]\s|\u2014|,?\s(?:but|although|though|whereas|while|because|however)\s"
)


class Check(StrEnum):
    """Everything that can be wrong with a draft."""

    EMPTY = "empty"
    LEAK = "leak"
    CITATION = "citation"
    SUPPORT = "support"
    NUMBER = "number"
    NAME = "name"
    ORDER = "order"
    POLARITY = "polarity"
    QUOTE = "quote"


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong. detail: where and what, for people; it quotes the draft alone."""

    check: Check
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What verification found. claims: the draft's, citations completed; failures: in order."""

    claims: tuple[Claim, ...]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures


@dataclass(frozen=True)
class _Source:
    """A source sentence (or a clause of one) and the words it may be read with.

    own: the terms of the text. terms, numbers: those of what it is read with, too.
    """

    text: str
    own: frozenset[str]
    terms: frozenset[str]
    numbers: frozenset[str]


@dataclass(frozen=True)
class _Known:
    """What all claims of a draft are read against.

    table: the weights of terms. terms: those of the question and of every passage.
    """

    table: Mapping[str, float]
    terms: frozenset[str]


@dataclass(frozen=True)
class _Page:
    """A passage, taken apart once for all claims."""

    n: int
    sources: tuple[_Source, ...]
    terms: frozenset[str]
    words: frozenset[str]
    numbers: frozenset[str]
    text: str


def verify(
    draft: str, passages: Sequence[Passage], *, question: str = "", secrets: Sequence[str] = ()
) -> Verdict:
    """Check a draft against the passages.

    question: what was asked; its words count for nothing unless a passage has them, too.
    secrets: strings of the prompt that must not show.
    """
    pages = {passage.n: _page(passage) for passage in passages}
    table = weights(source.terms for page in pages.values() for source in page.sources)
    known = _Known(table, frozenset(terms(question)).union(*(p.terms for p in pages.values())))
    leaked = [Failure(Check.LEAK, "the draft shows its prompt") for s in secrets if s in draft]
    found = [claim for claim in claims(draft) if claim.kind is not Kind.HEADING]
    checked = [_check(claim, pages, known) for claim in found]
    completed = tuple(claim for claim, _ in checked)
    failures = leaked[:1] + [failure for _, several in checked for failure in several]
    if not any(claim.cited for claim in completed) and not failures:
        failures = [Failure(Check.EMPTY, "the draft says nothing that could be checked")]
    return Verdict(completed, tuple(failures))


def _check(claim: Claim, pages: Mapping[int, _Page], known: _Known) -> tuple[Claim, list[Failure]]:
    """A claim with its citations completed, and what is wrong with it."""
    if not claim.cited and _is_hedge(claim):
        return claim, []
    invented = [n for n in claim.cited if n not in pages]
    if invented:
        return claim, [
            Failure(Check.CITATION, f"[{n}] is not among the passages: {_short(claim.text)}")
            for n in invented
        ]
    text = _PREFACE.sub("", claim.text)
    if claim.cited:
        return claim, _cited(text, [pages[n] for n in claim.cited], known)
    attempts = [(page, _supported(text, [page], known)) for page in pages.values()]
    for page, failures in attempts:
        if not failures:
            return replace(claim, cited=(page.n,)), []
    said = terms(text)
    nearest = max(attempts, key=lambda one: share(said, one[0].terms, known.table), default=None)
    return claim, [
        Failure(Check.CITATION, f"no passage says this: {_short(claim.text)}"),
        *(nearest[1] if nearest else ()),
    ]


def _cited(text: str, pages: Sequence[_Page], known: _Known) -> list[Failure]:
    failures = _supported(text, pages, known)
    said = terms(text)
    for page in pages:
        if share(said, page.terms, known.table) < _MIN_RELATED:
            failures.append(
                Failure(Check.CITATION, f"[{page.n}] does not speak of: {_short(text)}")
            )
    return failures


def _supported(text: str, pages: Sequence[_Page], known: _Known) -> list[Failure]:
    """What keeps any one source sentence of these pages from saying `text`; [] if one says it."""
    said, table = terms(text), known.table
    if not said:  # "They did.": the words around it say what it means
        if any(_plain(text) in _plain(page.text) for page in pages):
            return []
        return [Failure(Check.SUPPORT, f"it has no words that could be checked: {_short(text)}")]
    sources = [source for page in pages for source in page.sources]
    ranked = sorted(sources, key=lambda source: share(said, source.terms, table), reverse=True)
    failures = _quotes(text, pages) + _names(text, pages) + _borrowed(text, pages, known)
    if not ranked:
        return [*failures, Failure(Check.SUPPORT, "the passage holds no sentence")]
    best: list[Failure] = []
    for place, source in enumerate(ranked):
        support = share(said, source.terms, table)
        if support < MIN_SUPPORT:
            if place == 0:
                best = [
                    Failure(
                        Check.SUPPORT,
                        f"{support:.0%} of its words are in a source sentence: {_short(text)}",
                    ),
                    *_numbers(text, frozenset().union(*(page.numbers for page in pages))),
                ]
            break
        faults = (
            _own(text, source, table)
            + _numbers(text, source.numbers)
            + _amounts(text, source)
            + _order(text, source)
            + _polarity(text, source)
        )
        if not faults:
            return failures
        if place == 0:
            best = faults
    return failures + best


def _own(text: str, source: _Source, table: Mapping[str, float]) -> list[Failure]:
    if share(terms(text), source.own, table) >= _MIN_OWN:
        return []
    return [Failure(Check.SUPPORT, f"no one source sentence says this itself: {_short(text)}")]


def _borrowed(text: str, pages: Sequence[_Page], known: _Known) -> list[Failure]:
    said = frozenset(terms(text))
    here = frozenset().union(*(page.terms for page in pages))
    borrowed = (said & known.terms) - here
    if 1 - share(said, said - borrowed, known.table) <= _MAX_BORROWED:
        return []
    listed = ", ".join(f"'{term}'" for term in sorted(borrowed))
    detail = f"{listed} of the question or another passage is not in this one: {_short(text)}"
    return [Failure(Check.SUPPORT, detail)]


def _numbers(text: str, known: frozenset[str]) -> list[Failure]:
    return [
        Failure(Check.NUMBER, f"{number} is not in the source: {_short(text)}")
        for number in dict.fromkeys(numbers(text))
        if number not in known
    ]


def _amounts(text: str, source: _Source) -> list[Failure]:
    """What a number of the claim counts must follow it in the source, where anything does."""
    there = [one for one in amounts(source.text, _REACH_OF_NUMBER) if one[1]]
    failures = []
    for number, following in amounts(text, 1):
        counted = [words for value, words in there if value == number]
        if following and counted and not any(following[0] in words for words in counted):
            detail = f"{number} counts something else in the source: {_short(text)}"
            failures.append(Failure(Check.NUMBER, detail))
    return failures


def _names(text: str, pages: Sequence[_Page]) -> list[Failure]:
    known = frozenset().union(*(page.words for page in pages))
    return [
        Failure(Check.NAME, f"'{name}' is not in the source: {_short(text)}")
        for name in dict.fromkeys(names(text))
        if stem(name) not in known
    ]


def _order(text: str, source: _Source) -> list[Failure]:
    """Names and numbers that the claim and its source share must come in the same order."""
    said, read = _landmarks(text), _landmarks(source.text)
    shared = [mark for mark in said if mark in read]
    rest = iter(read)
    # `in` on an iterator moves it on: this asks whether `shared` is a subsequence of `read`.
    if all(mark in rest for mark in shared):
        return []
    return [Failure(Check.ORDER, f"names or numbers changed places: {_short(text)}")]


def _landmarks(text: str) -> list[str]:
    """Names (but for the word that begins the sentence) and numbers, in order."""
    found = []
    for place, word in enumerate(re.findall(r"[-+]?\d[\d.,:/-]*|[^\W_]+", text)):
        if word[0].isdigit() or word[0] in "+-":
            found += numbers(word)
        elif place and word[0].isupper() and word.lower() not in STOP_WORDS and len(word) > 1:
            found.append(stem(word.lower()))
    return found


def _polarity(text: str, source: _Source) -> list[Failure]:
    # Equal counts, not parity: who drops "without keys" and turns "refuses" round lies twice.
    said, read = negated(text, 1), negated(source.text, _REACH_OF_NEGATION)
    if len(said) != len(read):
        return [Failure(Check.POLARITY, f"its negation differs from the source: {_short(text)}")]
    moved = [one for one in said if one and not any(one[0] in other for other in read)]
    if moved:
        return [Failure(Check.POLARITY, f"it negates something else: {_short(text)}")]
    turned = opposites(text, source.text) + opposites(text, source.text, FORCES)
    return [
        Failure(Check.POLARITY, f"'{word}' where the source has '{other}': {_short(text)}")
        for word, other in turned
    ]


def _quotes(text: str, pages: Sequence[_Page]) -> list[Failure]:
    known = [_plain(page.text) for page in pages]
    return [
        Failure(Check.QUOTE, f"these words are in no cited passage: {_short(quote)}")
        for quote in quotes(text)
        if not any(_plain(quote).rstrip(".,;") in page for page in known)
    ]


def _plain(text: str) -> str:
    """For verbatim comparison: one kind of quotation mark, apostrophe and white space."""
    straight = text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    return " ".join(straight.lower().split())


def _is_hedge(claim: Claim) -> bool:
    """``According to the sources:`` and the like, which says nothing of its own."""
    said = set(terms(claim.text))
    return bool(said) and said <= _HEDGES and not numbers(claim.text)


def _page(passage: Passage) -> _Page:
    text = without_markers(passage.text)
    title = passage.title or ""
    everything = f"{title}\n{text}"
    return _Page(
        passage.n,
        tuple(_sources(title, split(text))),
        frozenset(terms(everything)),
        frozenset(stem(word.lower()) for word in words(everything)),
        frozenset(numbers(everything)),
        everything,
    )


def _sources(title: str, sentences: Sequence[Sentence]) -> Iterator[_Source]:
    before = ""
    for sentence in sentences:
        first = next(iter(words(sentence.text)), "").lower()
        context = f"{title}\n{sentence.heading}\n"
        if first in _PRONOUNS:
            context += before
        clauses = _CLAUSE.split(sentence.text)
        for text in [sentence.text, *(clauses if len(clauses) > 1 else ())]:
            yield _Source(
                text,
                frozenset(terms(text)),
                frozenset(terms(context + text)),
                frozenset(numbers(context + text)),
            )
        before = sentence.text


def _short(text: str) -> str:
    return f"\u201c{text if len(text) <= 120 else text[:119] + '…'}\u201d"
