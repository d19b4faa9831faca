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


@dataclass(frozen=True)
class Evidence:
    """One sentence of a passage and what speaks for it.

    n: the passage's number. before: the sentence before it in the passage, "" if there is none.
    coverage: weighted share of the question's terms in the sentence; context: the same with title,
    heading and the sentence before; passage: the same in the whole passage. All 0..1.
    similarity: cosine of the sentence's and the question's vectors, or None without an embedder.
    fits: 1.0 if it holds the kind of thing asked for, -1.0 if not, 0.0 if anything may answer.
    score: the sum of these by their weights; higher is better.
    """

    n: int
    sentence: Sentence
    before: str
    coverage: float
    context: float
    passage: float
    similarity: float | None
    fits: float
    score: float


def gather(question: str, passages: Sequence[Passage]) -> list[Evidence]:
    """The shortlist: at most `SHORTLIST` sentences, best first by words alone."""
    asked = frozenset(terms(question))
    kind = features(question).asks_for
    split_passages = [(passage, split(without_markers(passage.text))) for passage in passages]
    table = weights(
        terms(f"{passage.title or ''} {sentence.heading} {sentence.text}")
        for passage, sentences in split_passages
        for sentence in sentences
    )
    found = [
        evidence
        for passage, sentences in split_passages
        for evidence in _of_passage(asked, kind, passage, sentences, table)
    ]
    found.sort(key=lambda one: one.score, reverse=True)
    return found[:SHORTLIST]


def _of_passage(
    asked: frozenset[str],
    kind: AnswerKind,
    passage: Passage,
    sentences: Sequence[Sentence],
    table: Mapping[str, float],
) -> list[Evidence]:
    title = frozenset(terms(passage.title or ""))
    every = [frozenset(terms(sentence.text)) for sentence in sentences]
    whole = share(asked, title.union(*every), table)
    found = []
    for place, sentence in enumerate(sentences):
        if sentence.kind is Kind.HEADING or len(sentence.text) > _MAX_CHARACTERS:
            continue
        before = sentences[place - 1] if place else None
        around = title | frozenset(terms(sentence.heading)) | (every[place - 1] if place else set())
        one = Evidence(
            n=passage.n,
            sentence=sentence,
            before=before.text if before and before.kind is sentence.kind else "",
            coverage=share(asked, every[place], table),
            context=share(asked, every[place] | around, table),
            passage=whole,
            similarity=None,
            fits=_fits(kind, sentence.text, asked),
            score=0.0,
        )
        found.append(_scored(one))
    return found


def _fits(kind: AnswerKind, text: str, asked: frozenset[str]) -> float:
    """Whether a sentence holds a time, a quantity or a name that the question does not have."""
    if kind is AnswerKind.ANY:
        return 0.0
    if kind is AnswerKind.TIME:
        holds = _TIME.search(text) is not None
    elif kind is AnswerKind.NUMBER:
        holds = _QUANTITY.search(text) is not None
    else:
        # The first word is a capital in any sentence.
        rest = text.split(maxsplit=1)[1:]
        holds = any(stem(name) not in asked for name in names(" ".join(rest)))
    return 1.0 if holds else -1.0


# WEIGHTS: to be fitted
MIN_CONFIDENCE = 0.5
MIN_RELEVANCE = 0.3


def _scored(one: Evidence) -> Evidence:
    return replace(one, score=one.coverage + one.context + (one.similarity or 0.0) + 0.2 * one.fits)


def with_similarities(
    evidence: Sequence[Evidence], similarities: Sequence[float]
) -> list[Evidence]:
    """The evidence with its similarities, in the same order, scored and sorted anew."""
    found = [
        _scored(replace(one, similarity=value))
        for one, value in zip(evidence, similarities, strict=True)
    ]
    return sorted(found, key=lambda one: one.score, reverse=True)


def confidence(evidence: Sequence[Evidence]) -> float:
    """How surely the best sentence answers the question, 0..1; 0.0 without evidence."""
    return 1 / (1 + math.exp(-(evidence[0].score - 1))) if evidence else 0.0
