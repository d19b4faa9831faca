"""A conversation's last question made to stand alone, by rules. Pure functions.

A follow-up ("and for staff?", "how long does it take?") says too little for a search. What it
leaves out was said in the turns before it, so that their terms are put behind it. A question that
stands alone stays as it is, word for word: wrong terms do more harm than missing ones.

The rules know English and German. A question in another language stays as it is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from services.retrieve.search.follow_up import (
    STRUCTURE,
    acknowledges,
    content_words,
    language_of,
    need_of,
    small,
    telling,
    words_of,
)
from services.retrieve.search.function_words import ARTICLES, PREDICATES, PREPOSITIONS, SUBJECTS

Role = Literal["system", "user", "assistant"]

MAX_QUERY_CHARACTERS = 8192
_MOST_CARRIED = 8
# Earlier turns of the user that are read: what is further back is no longer spoken of.
_TURNS = 6
_NAMES_OF_AN_ANSWER = 3
_LONGEST_NAMING_ANSWER = 400


_SENTENCE = re.compile(r"(?<=[.!?])\s+")


# Fragments that add to what was asked and take no word's place.
_ADDING = frozenset(("also", "only", "even", "auch", "nur", "sogar"))
# What comes behind them is as often the topic ("apply for leave") as one case of it ("days of
# leave for nurses"), which gives way to another only where so many nouns say the topic without it.
_AMBIGUOUS = frozenset(("for", "für"))
_NOUNS_OF_A_TOPIC = 2
# A question whose answer is a name, which is spoken of next.
_NAMING = re.compile(
    r"^\W*(?:(?:and|und) )?(?:(?:by|from|for|to|with|von|an|für|mit) )?"
    r"(?:who|whom|which|wer|wen|wem|welche[rsnm]?)\b",
    re.IGNORECASE,
)


class Part(Protocol):
    """A piece of a message's text, as in OpenAI's content parts."""

    @property
    def text(self) -> str:
        """What it says."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of a conversation: who said what."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Standalone:
    """A query that needs no conversation. how: what was done for it, in words, for `explain`.

    carried: the words of earlier turns that were put behind the question; empty where it stands
    alone.
    """

    query: str
    how: str
    carried: tuple[str, ...] = ()


def said(content: str | Sequence[Part]) -> str:
    """The text of a message's content; parts are joined by line breaks."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def standalone(messages: Sequence[Message]) -> Standalone:
    """The last user turn as a query of its own, at most `MAX_QUERY_CHARACTERS` long.

    Raises ValueError where no user turn has any text.
    """
    turns = _turns(messages)
    if not turns:
        raise ValueError("no message of the user has any text: there is no question")
    question = turns[-1].question
    if len(question) > MAX_QUERY_CHARACTERS:
        return Standalone(question[:MAX_QUERY_CHARACTERS], "cut to the longest query that there is")
    # A thank-you is no question: what was asked before it is still spoken of.
    earlier = [turn for turn in turns[:-1] if not acknowledges(turn.question)][-_TURNS:]
    if not earlier:
        return Standalone(question, "as asked")
    language = language_of(question) or next(
        (known for turn in reversed(earlier) if (known := language_of(turn.question))), None
    )
    need = need_of(question, language)
    if need is None:
        return Standalone(question, "as asked")
    topic = _topic(earlier, whole=need == "fragment")
    replaced = _replaced(earlier, question, topic) if need == "fragment" else set()
    carried = [word for word in _new(topic, question) if small(word) not in replaced]
    del carried[_MOST_CARRIED:]
    room = MAX_QUERY_CHARACTERS - len(question)
    while carried and len(" ".join(carried)) + 1 > room:
        carried.pop()
    if not carried:
        return Standalone(question, "as asked")
    return Standalone(
        f"{question} {' '.join(carried)}", f"carried: {', '.join(carried)}", tuple(carried)
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """A user's turn with the answer to it."""

    question: str
    answer: str


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """The last turns, oldest first, those without text left out; an answer belongs to the question
    before it."""
    found: list[_Turn] = []
    for message in messages:
        text = message.text.strip()
        if not text:
            continue
        if message.role == "user":
            found.append(_Turn(text, ""))
        elif message.role == "assistant" and found:
            found[-1] = _Turn(found[-1].question, text)
    return found


def _topic(turns: Sequence[_Turn], *, whole: bool) -> list[str]:
    """What the turns are about: the words of the last of them, with what that one lacked itself.

    whole: with its verbs, as for a fragment that takes the question's place of one word.
    """
    *earlier, last = turns
    language = language_of(last.question)
    need = need_of(last.question, language) if earlier else None
    own = content_words(last.question)
    if not whole:
        own = _nouns(last.question, language)
    before = _topic(earlier, whole=need == "fragment") if need else []
    if need == "fragment" and whole:
        # "And for fathers?" after "and for nurses?": the one takes the other's place.
        own = [] if before else own
    return _distinct([*([] if whole else _answered(last)), *before, *own])


def _replaced(turns: Sequence[_Turn], fragment: str, topic: Sequence[str]) -> set[str]:
    """The words that a fragment takes the place of: "in Berlin" gives way to "and in Hamburg?".

    topic: what would be carried without it.
    """
    named = [small(word) for word in words_of(fragment)]
    found: set[str] = set()
    at = next((word for word in named if word in PREPOSITIONS), None)
    if _ADDING.intersection(named):
        return found
    for turn in turns:
        follows = False
        for word in map(small, words_of(turn.question)):
            structural = word in STRUCTURE
            follows = word == at or (follows and (not structural or word in ARTICLES))
            if follows and not structural:
                found.add(word)
    if at in _AMBIGUOUS:
        nouns = {
            small(word)
            for turn in turns
            for word in _nouns(turn.question, language_of(turn.question))
        }
        left = [word for word in map(small, topic) if word in nouns - found]
        if len(telling(left)) < _NOUNS_OF_A_TOPIC:
            return set()
    return found


def _nouns(question: str, language: str | None) -> list[str]:
    """The content words that are no verbs as far as their neighbours tell; all, if none is left."""
    content = [word for word in content_words(question) if small(word) not in PREDICATES]
    if language == "de":
        words = [word for word in content if word[0].isupper() or any(map(str.isdigit, word))]
    else:
        plain = [small(word) for word in words_of(question)]
        verbs = {
            plain[place]
            for place in range(1, len(plain))
            if (plain[place - 1] in SUBJECTS or plain[place - 1] == "who")
            and plain[place] not in STRUCTURE
        }
        words = [word for word in content if small(word) not in verbs]
    return words or content or content_words(question)


def _answered(turn: _Turn) -> list[str]:
    """The names in the first sentence of an answer to "who …?" or "which …?": what is spoken of
    next."""
    if not _NAMING.match(turn.question) or not turn.answer:
        return []
    sentence = _SENTENCE.split(turn.answer[:_LONGEST_NAMING_ANSWER], maxsplit=1)[0]
    return [
        word
        for word in content_words(re.sub(r"\[[\d, ]+\]", "", sentence))
        if word[0].isupper() or (any(map(str.isdigit, word)) and not word.isdigit())
    ][:_NAMES_OF_AN_ANSWER]


def _new(topic: Iterable[str], question: str) -> list[str]:
    """The words of the topic that the question does not have."""
    there = {small(word) for word in words_of(question)}
    return [word for word in topic if small(word) not in there]


def _distinct(words: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(small(word), word)
    return list(found.values())
