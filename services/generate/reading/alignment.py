"""How a sentence answers a question, feature by feature. Pure functions on words.

Every feature compares the two texts. They say which words of the question the sentence, what it is
read with and its passage have, whether those words stand together, and what speaks against it: a
name, a number or a qualifier that is missing, a negation, an opposite.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from services.generate.reading.question import AnswerKind, features
from services.generate.reading.words import (
    OPPOSITES,
    STOP_WORDS,
    names,
    negations,
    numbers,
    share,
    stem,
    words,
)

# Words of a sentence that are read together when it is asked whether it holds the question's words
# in one place.
_WINDOW = 16
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
# What the asker wants done is not what the sources are about.
_TASK = """explain describe discuss elaborate compare comparison contrast difference differences
    differ summarise summarize summary overview outline gist reason reasons advantages
    disadvantages please tell list name give main points"""
TASK_TERMS = frozenset(stem(word) for word in _TASK.split())

_INTERROGATIVES = frozenset(
    {"what", "which", "who", "whom", "whose", "when", "where", "why", "how"}
)
_AUXILIARIES = """is are was were be been do does did has have had can could will would shall
    should may might must isn't aren't wasn't weren't don't doesn't didn't hasn't haven't hadn't
    can't couldn't won't wouldn't shouldn't"""
_VERBS = frozenset(_AUXILIARIES.split())
_JOINING = "of in on at for to by from with that who which as than and or"
_PREPOSITIONS = frozenset(_JOINING.split())
# Nouns that name the kind of thing asked for: a sentence that answers need not have them.
_KINDS = """type kind sort name term word form way year date day month century decade time city
    country state place town person people man woman thing number amount percentage percent
    many much long old far often large big tall high fast deep group part"""
_KIND_TERMS = frozenset(stem(word) for word in _KINDS.split())
# They make another question of the same words.
_QUALIFYING = """most least more less fewer fewest only all none every never always first second
    third last final largest smallest highest lowest biggest oldest youngest earliest latest best
    worst longest shortest next previous original former current main before after except without
    both neither half"""
_QUALIFIERS = frozenset(_QUALIFYING.split())
_SUPERLATIVE = re.compile(r"[a-z]{3,}est")
# Verbs and the like that deny without a "not".
_DENYING = """fail refuse lack prevent avoid exclude reject deny ignore forbid prohibit ban cease
    stop oppose lose except unable absent missing instead"""
_DENYING_TERMS = frozenset(stem(word) for word in _DENYING.split())
_PREFIXES = ("un", "in", "im", "non", "dis", "ir", "il", "anti", "mis")
_SHORTEST_ALIKE = 4  # letters that two forms of one word have in common at the least
_ALIKE = 0.6  # and their share of the longer form


@dataclass(frozen=True)
class Words:
    """A text, read once. said: its words in lower case; stems: theirs, "" for a stop word;
    terms: the distinct stems."""

    text: str
    said: tuple[str, ...]
    stems: tuple[str, ...]
    terms: frozenset[str]

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Its numbers, written one way."""
        return frozenset(numbers(self.text))

    @cached_property
    def negations(self) -> int:
        """How many of its words negate."""
        return negations(self.text)


@dataclass(frozen=True)
class QuestionTerms:
    """A question, taken apart once for all sentences.

    terms: stems of its content words. focus: those beside the interrogative, without those that
    name a kind of thing. names: stems. opposites: for a word, the words of which one would turn it
    round. negations: how many words negate.
    """

    text: str
    terms: frozenset[str]
    names: frozenset[str]
    numbers: frozenset[str]
    focus: frozenset[str]
    qualifiers: frozenset[str]
    denials: frozenset[str]
    opposites: Mapping[str, frozenset[str]]
    negations: int
    kind: AnswerKind


@dataclass(frozen=True)
class Around:
    """What a sentence is read with: the title, the heading and the sentence before.

    table: the words' weights. passage: the terms of the question that its passage has, in any form.
    """

    table: Mapping[str, float]
    texts: tuple[Words, ...]
    passage: frozenset[str]

    @cached_property
    def terms(self) -> frozenset[str]:
        """The terms of all of it."""
        return frozenset[str]().union(*(text.terms for text in self.texts))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The numbers of all of it."""
        return frozenset[str]().union(*(text.numbers for text in self.texts))


@dataclass(frozen=True)
class Alignment:
    """What speaks for and against a sentence as an answer. Shares are weighted, 0..1.

    akin: share of the question's words that the sentence has, in any form (migrated, migration);
    scattered: share that neither it nor what it is read with has, but another part of its passage.
    near: share that stands within 16 words. focus: share of the words beside the interrogative.
    length: ln of the characters: a long sentence may hold more than its words show.
    names, numbers, qualifiers, denials: how many of the question's are missing, at most 2.
    negated: 1.0 if the question negates more than the sentence; denied: if only the sentence does;
    opposite: if it has a word's opposite.
    """

    akin: float
    scattered: float
    near: float
    focus: float
    length: float
    names: float
    numbers: float
    qualifiers: float
    denials: float
    negated: float
    denied: float
    opposite: float


def read(text: str) -> Words:
    """The text as `align` wants it."""
    said = tuple(word.lower() for word in words(text))
    stems = tuple("" if word in STOP_WORDS else stem(word) for word in said)
    return Words(
        text,
        said,
        stems,
        frozenset(stems) - {""},
    )


NOTHING = read("")


def take_apart(question: str) -> QuestionTerms:
    """The question as `align` wants it."""
    whole = read(question)
    asked = whole.terms - TASK_TERMS
    rest = " ".join(question.split()[1:])  # the first word is a capital in any question
    return QuestionTerms(
        text=question,
        terms=asked,
        names=frozenset(stem(name) for name in names(rest)),
        numbers=whole.numbers,
        focus=_focus(whole.said) & asked,
        qualifiers=frozenset(word for word in whole.said if _qualifies(word)),
        denials=whole.terms & _DENYING_TERMS,
        opposites=_opposites(whole),
        negations=whole.negations,
        kind=features(question).asks_for,
    )


def present(wanted: frozenset[str], there: Collection[str]) -> frozenset[str]:
    """The wanted stems that are there, be it in another form: one that begins mostly alike."""
    starts = _by_start(wanted)
    alike = (
        one
        for other in there
        for one in starts.get(other[:_SHORTEST_ALIKE], ())
        if _alike(one, other)
    )
    return wanted.intersection(there).union(alike)


@lru_cache(maxsize=64)  # a question's terms are looked for in one passage after the other
def _by_start(wanted: frozenset[str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for one in wanted:
        if len(one) >= _SHORTEST_ALIKE:
            found.setdefault(one[:_SHORTEST_ALIKE], []).append(one)
    return found


def align(asked: QuestionTerms, sentence: Words, around: Around) -> Alignment:
    """How a sentence answers."""
    table = around.table
    akin = present(asked.terms, sentence.terms)
    here = akin | present(asked.terms - akin, around.terms)
    said = frozenset(sentence.said)
    return Alignment(
        akin=_share(asked.terms, akin, table),
        scattered=_share(asked.terms, around.passage - here, table),
        near=_near(asked.terms, sentence.stems, table),
        focus=_share(asked.focus, akin, table) if asked.focus else 1.0,
        length=math.log(1 + len(sentence.text)),
        names=_few(asked.names - sentence.terms - around.terms),
        numbers=_few(asked.numbers - sentence.numbers - around.numbers),
        qualifiers=_few(asked.qualifiers - said),
        denials=_few(asked.denials - sentence.terms),
        negated=float(asked.negations > sentence.negations),
        denied=float(sentence.negations > 0 == asked.negations),
        opposite=float(_turned(asked, said | sentence.terms)),
    )


def fits(asked: QuestionTerms, text: str) -> float:
    """Whether a sentence holds a time, a quantity or a name that the question does not have.

    1.0 if it does, -1.0 if not, 0.0 if anything may answer.
    """
    if asked.kind is AnswerKind.ANY:
        return 0.0
    if asked.kind in (AnswerKind.TIME, AnswerKind.NUMBER):
        kind = _TIME if asked.kind is AnswerKind.TIME else _QUANTITY
        known = asked.text.lower()
        holds = any(one.group().lower() not in known for one in kind.finditer(text))
    else:
        # The first word is a capital in any sentence.
        rest = text.split(maxsplit=1)[1:]
        holds = any(stem(name) not in asked.terms for name in names(" ".join(rest)))
    return 1.0 if holds else -1.0


def _focus(said: Sequence[str]) -> frozenset[str]:
    """The terms of the noun beside the first interrogative: what river, what is the capital of."""
    place = next((at for at, word in enumerate(said) if word in _INTERROGATIVES), None)
    if place is None:
        return frozenset()
    rest = list(said[place + 1 :])
    if rest and rest[0] in _VERBS:
        rest = rest[1:]
    found: list[str] = []
    for word in rest:
        if word in _VERBS or (found and word in _PREPOSITIONS):
            break
        if word not in STOP_WORDS:
            found.append(stem(word))
    return frozenset(found[:4]) - _KIND_TERMS


def _qualifies(word: str) -> bool:
    return word in _QUALIFIERS or _SUPERLATIVE.fullmatch(word) is not None


def _opposites(asked: Words) -> Mapping[str, frozenset[str]]:
    """For a question's words and stems, what would turn them round."""
    found = {word: OPPOSITES[word] for word in asked.said if word in OPPOSITES}
    for one in asked.terms:
        bare = {
            one.removeprefix(prefix)
            for prefix in _PREFIXES
            if one.startswith(prefix) and len(one) > len(prefix) + 3
        }
        if len(one) > 3:
            bare |= {prefix + one for prefix in _PREFIXES}
        found[one] = found.get(one, frozenset()) | bare
    return {word: others - {*asked.said, *asked.terms} for word, others in found.items()}


def _turned(asked: QuestionTerms, there: frozenset[str]) -> bool:
    return any(
        word not in there and not others.isdisjoint(there)
        for word, others in asked.opposites.items()
    )


def _share(wanted: frozenset[str], found: Collection[str], table: Mapping[str, float]) -> float:
    # A question without content words ("What is it?") is covered by nothing, not by anything.
    return share(wanted, found, table) if wanted else 0.0


def _alike(one: str, other: str) -> bool:
    shorter, longer = sorted((len(one), len(other)))
    same = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    return same >= max(_SHORTEST_ALIKE, _ALIKE * longer)


def _near(wanted: frozenset[str], stems: Sequence[str], table: Mapping[str, float]) -> float:
    """The best share of the question's words within a window."""
    windows = (stems[at : at + _WINDOW] for at, one in enumerate(stems) if one in wanted)
    return max((_share(wanted, wanted.intersection(one), table) for one in windows), default=0.0)


def _few(missing: Collection[str]) -> float:
    return float(min(2, len(missing)))
