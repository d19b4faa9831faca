"""Evidence: the passages' sentences, weighed against the question. Pure functions.

It serves twice: the extractive writer quotes the best of it, and its confidence says whether the
passages answer the question at all.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.generate.answer.passages import Passage
from services.generate.answer.sentences import Kind, Sentence, split
from services.generate.answer.words import (
    names,
    negations,
    numbers,
    opposites,
    share,
    stem,
    terms,
    weights,
    without_markers,
)
from services.generate.routing.features import AnswerKind, features

# Sentences that are worth a vector: the best by words alone. More cost time and change nothing.
SHORTLIST = 24
_MAX_CHARACTERS = 1200  # longer "sentences" are tables or dumps: not something to quote

_TIME = re.compile(
    r"\b(?:1\d{3}|20\d{2})s?\b|\b(?:january|february|march|april|may|june|july|august|september|"
    r"october|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
    r"century|centuries|decades?)\b|"
    r"\b\d+ (?:years?|months?|weeks?|days?|hours?|minutes?|seconds?)\b",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|"
    r"million|billion|half|twice|quarter|percent|none|single)\b",
    re.IGNORECASE,
)


# Where these numbers come from: 1,400 questions, half of them unanswerable, about the SQuAD 2.0 dev
# articles whose title's SHA-256 begins with a byte below 128, searched with BM25 and vectors; the
# other articles are for reporting (tests/quality/squad_baseline.py). The weights are those of a
# list-wise logistic fit to "the sentence holds the answer", scaled and rounded (it ranks such a
# sentence first in 83 of 100; split in halves, each fit does as well on the other half). The
# confidence is a logistic fit to "the question is answerable".
_WEIGHT_COVERAGE = 0.8
_WEIGHT_CONTEXT = 0.6
_WEIGHT_FITS = 0.2
_WEIGHT_RANK = 0.3
# Not fitted: those articles are prose. Beside a title, row or command that matches a little better,
# the sentence is what a reader understands.
_WEIGHT_WHOLE = 0.4
_BIAS, _BIAS_WITHOUT_SIMILARITY = -1.8, -0.7
_FOR_SIMILARITY = 2.2
_FOR_COVERAGE, _FOR_COVERAGE_WITHOUT_SIMILARITY = 1.2, 1.45
_FOR_STRANGE_NAME = -0.5
_FOR_CONTRADICTION = -1.7
# On those questions, which are made to mislead, this bar lets 86 of 100 answerable ones through and
# stops 41 of 100 unanswerable ones; it stopped 19 of 20 questions from other fields.
MIN_CONFIDENCE = 0.43
# Explanations and comparisons use few of a sentence's words; this bar only stops other fields.
MIN_RELEVANCE = 0.31

# What the asker wants done is not what the sources are about.
_TASK = """explain describe discuss elaborate compare comparison contrast difference differences
    differ summarise summarize summary overview outline gist reason reasons advantages
    disadvantages please tell list name give main points"""
_TASK_TERMS = frozenset(stem(word) for word in _TASK.split())


@dataclass(frozen=True)
class Evidence:
    """One sentence of a passage and what speaks for it.

    n: the passage's number. before: the whole sentence before it in the same paragraph or list, ""
    if there is none.
    coverage: weighted share of the question's terms in the sentence; context: the same with title,
    heading and the sentence before. Both 0..1.
    similarity: cosine of the sentence's and the question's vectors, or None without an embedder.
    fits: 1.0 if it holds the kind of thing asked for, -1.0 if not, 0.0 if anything may answer.
    strange: the question has a name or number that is not in the sentence or its context.
    contradicts: the question negates and the sentence does not, or has a word's opposite.
    """

    n: int
    sentence: Sentence
    before: str
    coverage: float
    context: float
    similarity: float | None
    fits: float
    strange: bool
    contradicts: bool

    @property
    def score(self) -> float:
        """How well it answers, beside other evidence for the same question; higher is better."""
        return (
            (self.similarity or 0.0)
            + _WEIGHT_COVERAGE * self.coverage
            + _WEIGHT_CONTEXT * self.context
            + _WEIGHT_FITS * self.fits
            + _WEIGHT_RANK / self.n
            + _WEIGHT_WHOLE * self.sentence.whole
        )


@dataclass(frozen=True)
class _Question:
    """A question, taken apart once for all sentences."""

    text: str
    terms: frozenset[str]
    marks: frozenset[str]
    kind: AnswerKind


def gather(question: str, passages: Sequence[Passage]) -> list[Evidence]:
    """The shortlist: at most `SHORTLIST` sentences, best first by words alone."""
    rest = question.split()[1:]  # the first word is a capital in any question
    asked = _Question(
        question,
        frozenset(terms(question)) - _TASK_TERMS,
        frozenset([stem(name) for name in names(" ".join(rest))] + numbers(question)),
        features(question).asks_for,
    )
    split_passages = [(passage, split(without_markers(passage.text))) for passage in passages]
    table = weights(
        terms(f"{passage.title or ''} {sentence.heading} {sentence.text}")
        for passage, sentences in split_passages
        for sentence in sentences
    )
    found = []
    for passage, sentences in split_passages:
        for place, sentence in enumerate(sentences):
            if sentence.kind is Kind.HEADING or len(sentence.text) > _MAX_CHARACTERS:
                continue
            if _heads_a_table(sentences, place):
                continue
            if not sentence.whole and _echoes(asked, passage, sentence):
                continue
            before = sentences[place - 1] if place else None
            found.append(_weigh(asked, passage, sentence, before, table))
    return sorted(found, key=lambda one: one.score, reverse=True)[:SHORTLIST]


def with_similarities(
    evidence: Sequence[Evidence], similarities: Sequence[float]
) -> list[Evidence]:
    """The evidence with its similarities, given in the same order, and sorted anew."""
    found = [
        replace(one, similarity=value) for one, value in zip(evidence, similarities, strict=True)
    ]
    return sorted(found, key=lambda one: one.score, reverse=True)


def confidence(evidence: Sequence[Evidence]) -> float:
    """How surely the first sentence answers the question, 0..1; 0.0 without evidence."""
    if not evidence:
        return 0.0
    best = evidence[0]
    if best.similarity is None:
        odds = _BIAS_WITHOUT_SIMILARITY + _FOR_COVERAGE_WITHOUT_SIMILARITY * best.coverage
    else:
        odds = _BIAS + _FOR_SIMILARITY * best.similarity + _FOR_COVERAGE * best.coverage
    odds += _FOR_STRANGE_NAME * best.strange + _FOR_CONTRADICTION * best.contradicts
    return 1 / (1 + math.exp(-odds))


def _heads_a_table(sentences: Sequence[Sentence], place: int) -> bool:
    """Whether it is a table's first row. A passage may begin in the midst of a table."""
    around = sentences[place - 1 : place + 2]
    return place > 0 and [one.kind is Kind.ROW for one in around] == [False, True, True]


def _echoes(asked: _Question, passage: Passage, sentence: Sentence) -> bool:
    """Whether a piece says nothing beyond the question and the document's title, as headings do,
    or repeats the question, as the example of a command may.

    The desk's texts have no marks of headings, and a heading is more like a question than any
    sentence that answers it.
    """
    said = frozenset(terms(sentence.text)) - _TASK_TERMS
    if said <= asked.terms | frozenset(terms(passage.title or "")):
        return True
    question = _one_line(asked.text).rstrip("? ") + "?"
    return question in _one_line(sentence.text)


def _one_line(text: str) -> str:
    return " ".join(text.lower().split())


def _weigh(
    asked: _Question,
    passage: Passage,
    sentence: Sentence,
    before: Sentence | None,
    table: Mapping[str, float],
) -> Evidence:
    own = frozenset(terms(sentence.text))
    title, heading = passage.title or "", sentence.heading
    around = f"{title}\n{heading}\n{before.text if before else ''}\n"
    in_context = own | frozenset(terms(around))
    return Evidence(
        n=passage.n,
        sentence=sentence,
        before=before.text if before and before.kind is sentence.kind and before.whole else "",
        # A question without content words ("What is it?") is covered by nothing, not by anything.
        coverage=share(asked.terms, own, table) if asked.terms else 0.0,
        context=share(asked.terms, in_context, table) if asked.terms else 0.0,
        similarity=None,
        fits=_fits(asked, sentence.text),
        strange=not asked.marks <= in_context | frozenset(numbers(around + sentence.text)),
        contradicts=(negations(asked.text) > 0 and negations(sentence.text) == 0)
        or bool(opposites(asked.text, sentence.text)),
    )


def _fits(asked: _Question, text: str) -> float:
    """Whether a sentence holds a time, a quantity or a name that the question does not have."""
    if asked.kind is AnswerKind.ANY:
        return 0.0
    if asked.kind is AnswerKind.TIME:
        holds = _TIME.search(text) is not None
    elif asked.kind is AnswerKind.NUMBER:
        holds = _QUANTITY.search(text) is not None
    else:
        # The first word is a capital in any sentence.
        rest = text.split(maxsplit=1)[1:]
        holds = any(stem(name) not in asked.terms for name in names(" ".join(rest)))
    return 1.0 if holds else -1.0
