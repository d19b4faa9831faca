"""Evidence: the passages' sentences, weighed against the question. Pure functions.

It serves twice: the extractive writer quotes the best of it, and its confidence says whether the
passages answer the question at all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from services.generate.reading.alignment import (
    NOTHING,
    TASK_TERMS,
    Alignment,
    Around,
    QuestionTerms,
    Words,
    align,
    fits,
    present,
    read,
    take_apart,
)
from services.generate.reading.passages import Passage
from services.generate.reading.sentences import Kind, Sentence, split
from services.generate.reading.words import one_line, weigh, weights, without_markers

# Sentences that are worth a vector: the best by words alone. More cost time and change nothing.
SHORTLIST = 24
_MAX_CHARACTERS = 1200  # longer "sentences" are tables or dumps: not something to quote

# Where these numbers come from: questions, half of them unanswerable, about the SQuAD 2.0 dev
# articles whose title's SHA-256 begins with a byte below 128; the other articles are for reporting
# (tests/quality/extractive.py). The weights of the score are those of a list-wise logistic fit to
# "the sentence holds the answer", scaled and rounded.
_WEIGHT_COVERAGE = 0.8
_WEIGHT_CONTEXT = 0.6
_WEIGHT_FITS = 0.2
_WEIGHT_RANK = 0.3
# Not fitted: those articles are prose. Beside a title, row or command that matches a little better,
# the sentence is what a reader understands.
_WEIGHT_WHOLE = 0.4
# The confidence is a logistic regression to "the question is answerable" on those 1,400 questions
# and 107 about another field, `extractive fit` (L2, no sign the wrong way round). What was tried
# and changed nothing on articles that a fit had not seen: the best cosine of each token, the
# curator's scores, more opposites, boosted trees (worse); and, with four times as many questions,
# the kind of thing asked for, the passage's rank, margins between sentences, the order of the
# words, names that stand elsewhere, words that stand nowhere (each half a point or less).
_ODDS = {
    "bias": -7.46,
    "similarity": 6.52,
    "akin": 0.68,
    "near": 0.94,
    "focus": 0.25,
    "length": 0.49,
    "scattered": -2.31,
    "names": -0.06,
    "numbers": -0.95,
    "qualifiers": -0.57,
    "denials": -1.53,
    "negated": -3.62,
    "denied": -0.36,
    "opposite": -1.9,
}
_ODDS_WITHOUT_SIMILARITY = {
    "bias": -1.42,
    "akin": 1.55,
    "near": 0.97,
    "focus": 0.2,
    "scattered": -2.86,
    "names": -0.08,
    "numbers": -0.81,
    "qualifiers": -0.49,
    "denials": -1.17,
    "negated": -3.29,
    "denied": -0.14,
    "opposite": -1.59,
}
# Under this bar fall at most 15 of 100 answerable questions, for 19 in 20 draws of such articles.
MIN_CONFIDENCE = 0.34
# Explanations and comparisons use few of a sentence's words; this bar only stops other fields.
MIN_RELEVANCE = 0.2


@dataclass(frozen=True)
class Evidence:
    """One sentence of a passage and what speaks for it.

    n: the passage's number. before: the whole sentence before it in the same paragraph or list, ""
    if there is none.
    coverage: weighted share of the question's words in the sentence; context: the same with title,
    heading and the sentence before. Both 0..1.
    fits: 1.0 if it holds the kind of thing asked for, -1.0 if not, 0.0 if anything may answer.
    similarity: cosine of the sentence's and the question's vectors, or None without an embedder.
    asked, words, around: what `alignment` is made from.
    """

    n: int
    sentence: Sentence
    before: str
    coverage: float
    context: float
    fits: float
    similarity: float | None
    asked: QuestionTerms
    words: Words
    around: Around

    @cached_property
    def alignment(self) -> Alignment:
        """All that the confidence looks at. Made only where it is wanted: of the best sentence."""
        return align(self.asked, self.words, self.around)

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


def gather(question: str, passages: Sequence[Passage]) -> list[Evidence]:
    """The shortlist: at most `SHORTLIST` sentences, best first by words alone."""
    asked = take_apart(question)
    pages = [_page(passage) for passage in passages]
    table = weights(
        {*page.title.terms, *heading.terms, *words.terms}
        for page in pages
        for _, heading, words in page.sentences
    )
    found = [one for page in pages for one in _weigh(asked, page, table)]
    return sorted(found, key=lambda one: one.score, reverse=True)[:SHORTLIST]


def with_similarities(
    evidence: Sequence[Evidence], similarities: Sequence[float]
) -> list[Evidence]:
    """The evidence with its similarities, given in the same order, and sorted anew."""
    found = [
        replace(one, similarity=value) for one, value in zip(evidence, similarities, strict=True)
    ]
    return sorted(found, key=lambda one: one.score, reverse=True)


def signs(evidence: Sequence[Evidence]) -> Mapping[str, float]:
    """What the confidence in some evidence is made from, by name.

    They are those of the first sentence; similarity, where it is known, is the highest of all.
    """
    found = vars(evidence[0].alignment)
    alike = [one.similarity for one in evidence if one.similarity is not None]
    return {**found, "similarity": max(alike)} if alike else found


def confidence(evidence: Sequence[Evidence]) -> float:
    """How surely the first sentence answers the question, 0..1; 0.0 without evidence."""
    if not evidence:
        return 0.0
    found = signs(evidence)
    odds = _ODDS if "similarity" in found else _ODDS_WITHOUT_SIMILARITY
    weighed = sum(weight * found.get(name, 1.0) for name, weight in odds.items())
    return 1 / (1 + math.exp(-weighed))


@dataclass(frozen=True)
class _Page:
    """A passage, read once. sentences: each with its heading, and read."""

    passage: Passage
    title: Words
    sentences: Sequence[tuple[Sentence, Words, Words]]


def _page(passage: Passage) -> _Page:
    sentences = split(without_markers(passage.text))
    headings = {text: read(text) for text in {one.heading for one in sentences}}
    return _Page(
        passage,
        read(passage.title or ""),
        [(one, headings[one.heading], read(one.text)) for one in sentences],
    )


def _weigh(asked: QuestionTerms, page: _Page, table: Mapping[str, float]) -> Iterator[Evidence]:
    """The sentences that may be quoted."""
    # Weighed once: for each sentence, a long question beside long passages would take seconds.
    all_of_it = weigh(asked.terms, table)

    def covered(found: frozenset[str]) -> float:
        """Share of the question's words, as they are."""
        return weigh(asked.terms & found, table) / all_of_it if all_of_it else 0.0

    everything = page.title.terms.union(*(words.terms for _, _, words in page.sentences))
    here = present(asked.terms, everything)
    kinds = [one.kind for one, _, _ in page.sentences]
    before, read_before = None, NOTHING
    for place, (sentence, heading, words) in enumerate(page.sentences):
        lead, read_lead = before, read_before
        before, read_before = sentence, words
        if sentence.kind is Kind.HEADING or len(sentence.text) > _MAX_CHARACTERS:
            continue
        if _heads_a_table(kinds, place):
            continue
        if not sentence.whole and _echoes(asked, page.title, words):
            continue
        around = Around(
            table,
            (page.title, heading, read_lead),
            here,
        )
        leads = lead is not None and lead.kind is sentence.kind and lead.whole
        yield Evidence(
            n=page.passage.n,
            sentence=sentence,
            before=lead.text if lead and leads else "",
            coverage=covered(words.terms),
            context=covered(words.terms | around.terms),
            fits=fits(asked, sentence.text),
            similarity=None,
            asked=asked,
            words=words,
            around=around,
        )


def _heads_a_table(kinds: Sequence[Kind], place: int) -> bool:
    """Whether it is a table's first row. A passage may begin in the midst of a table."""
    around = [kind is Kind.ROW for kind in kinds[place - 1 : place + 2]]
    return place > 0 and around == [False, True, True]


def _echoes(asked: QuestionTerms, title: Words, sentence: Words) -> bool:
    """Whether a piece says nothing beyond the question and the document's title, as headings do,
    or repeats the question, as the example of a command may.

    The desk's texts have no marks of headings, and a heading is more like a question than any
    sentence that answers it.
    """
    if sentence.terms - TASK_TERMS <= asked.terms | title.terms:
        return True
    question = one_line(asked.text).rstrip("? ") + "?"
    return question in one_line(sentence.text)
