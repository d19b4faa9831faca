"""What checks read: a claim, a source sentence and a passage, each taken apart once. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from services.generate.reading.passages import Passage
from services.generate.reading.sentences import Sentence, split
from services.generate.reading.words import (
    PRONOUNS,
    STOP_WORDS,
    numbers,
    stem,
    terms,
    without_markers,
)
from services.generate.verification.checks.plain import plain

# More may point back than has to: "There" often does not.
LEANING = PRONOUNS | {"that", "both", "here", "there"}
_STANDING_FOR = "it its he him his she her hers they them their"
_PERSONAL = frozenset(_STANDING_FOR.split())
_CLAUSE = re.compile(
    r"[;:]\s|\s[-\u2013\u2014]\s|\u2014|,?\s(?:but|although|though|whereas|while|because|however)\s"
)
_TOKEN = re.compile(
    r"(?<!\w)(?P<number>[-\u2212]?\d+(?:\.\d+)?)(?![^\W_])|[^\W_]+(?:['\u2019][^\W_]+)*"
)


class Word(NamedTuple):
    """A word as checks compare it.

    text: as written. stem: of its lower-case form; a number as it is. mark: whether it is a name or
    a number, which stand for something of their own. opens: whether the sentence begins with it, so
    that its capital says nothing.
    """

    text: str
    stem: str
    mark: bool
    number: bool
    opens: bool


@dataclass(frozen=True)
class Said:
    """A claim. text: as written. plain: as `plain` writes it. terms: stems of its content words."""

    text: str
    plain: str
    terms: frozenset[str]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Source:
    """A source sentence (or a clause of one, or a whole passage) and what it may be read with.

    text: as written, "" for a whole passage. own: the terms of the text. terms, numbers: with those
    of what it is read with: title, heading, and the sentence before where it begins with a pronoun.
    rest: the terms that a clause's sentence has beside it. stems: of all its words; around: of what
    it is read with, and of the sentence before where a pronoun is anywhere.
    """

    text: str
    plain: str
    own: frozenset[str]
    terms: frozenset[str]
    numbers: frozenset[str]
    rest: frozenset[str]
    stems: frozenset[str]
    around: frozenset[str]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Page:
    """A passage. whole: all of it as one source. names: stems that it has as names for certain."""

    n: int
    title: str
    text: str
    sources: tuple[Source, ...]
    whole: Source
    names: frozenset[str]


@dataclass(frozen=True)
class Known:
    """What all claims of a draft are read against.

    table: the weights of terms, see `weights`. terms: those of the question and of every passage.
    """

    table: Mapping[str, float]
    terms: frozenset[str]


@dataclass(frozen=True)
class _Text:
    """One piece of text, read once."""

    text: str
    plain: str
    words: tuple[Word, ...]
    terms: frozenset[str]
    numbers: frozenset[str]
    stems: frozenset[str]


def said(text: str, body: str) -> Said:
    """A claim. body: what it says without an opening such as "According to the passage,"."""
    read = _read(body)
    return Said(text, read.plain, read.terms, read.words)


# A draft may be verified more than once: when its writer asks, and before it is shown.
@lru_cache(maxsize=64)
def page(passage: Passage) -> Page:
    """A passage, its footnote marks left out."""
    text = without_markers(passage.text)
    title = _read(passage.title or "")
    sentences = split(text)
    read = [_read(sentence.text) for sentence in sentences]
    names = {word.stem for one in read for word in one.words if _is_name(word)}
    names |= {word.stem for word in title.words if word.mark and not word.number}
    whole = _joined(read)
    return Page(
        passage.n,
        passage.title or "",
        text,
        tuple(_sources(title, sentences, read)),
        _source(whole, [title], [title], whole),
        frozenset(names),
    )


def _is_name(word: Word) -> bool:
    return word.mark and not word.number and not word.opens


def _sources(
    title: _Text, sentences: Sequence[Sentence], read: Sequence[_Text]
) -> Iterator[Source]:
    before = _read("")
    for sentence, one in zip(sentences, read, strict=True):
        found = [word.text.lower() for word in one.words]
        context = [title, _read(sentence.heading)]
        near = [*context, before]
        if found and found[0] in LEANING:
            context = near
        around = near if _PERSONAL & {*found} else context
        yield _source(one, context, around, one)
        clauses = _CLAUSE.split(sentence.text)
        for clause in clauses if len(clauses) > 1 else ():
            yield _source(_read(clause), context, around, one)
        before = one


def _source(
    one: _Text, context: Sequence[_Text], around: Sequence[_Text], sentence: _Text
) -> Source:
    return Source(
        one.text,
        one.plain,
        one.terms,
        one.terms.union(*(each.terms for each in context)),
        one.numbers.union(*(each.numbers for each in context)),
        sentence.terms - one.terms,
        one.stems,
        frozenset[str]().union(*(each.stems for each in around)),
        one.words,
    )


def _joined(read: Sequence[_Text]) -> _Text:
    """A whole text of its sentences; as evidence it would be too long to show."""
    return _Text(
        "",
        "\n".join(one.plain for one in read),
        tuple(word for one in read for word in one.words),
        frozenset[str]().union(*(one.terms for one in read)),
        frozenset[str]().union(*(one.numbers for one in read)),
        frozenset[str]().union(*(one.stems for one in read)),
    )


@lru_cache(maxsize=256)  # headings and titles come again and again
def _read(text: str) -> _Text:
    one_way = plain(text)
    found = read_words(one_way)
    return _Text(
        text,
        one_way,
        found,
        frozenset(terms(one_way)),
        frozenset(numbers(one_way)),
        frozenset(word.stem for word in found),
    )


def read_words(text: str) -> tuple[Word, ...]:
    """The words of a plain text, in order."""
    return tuple(_words(text))


def _words(text: str) -> Iterator[Word]:
    for place, match in enumerate(_TOKEN.finditer(text)):
        word = match.group()
        if match["number"]:
            yield Word(word, word.replace("\u2212", "-"), True, True, place == 0)
            continue
        lower = word.lower()
        number = not word.isalpha() and any(character.isdigit() for character in word)
        yield Word(word, stem(lower), number or _is_capital(word, lower), number, place == 0)


def _is_capital(word: str, lower: str) -> bool:
    if not word[0].isupper():
        return False
    bare = lower.replace("\u2019", "'").removesuffix("'s")
    return len(bare) > 1 and bare not in STOP_WORDS
