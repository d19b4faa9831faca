"""Whether a question is a follow-up: what it lacks, by its words alone. Pure functions.

English and German; a question in another language is taken for one of its own.
"""

import re
from collections.abc import Sequence
from typing import Literal

from services.retrieve.search.function_words import (
    ARTICLES,
    BESIDE,
    CLAUSE,
    ENGLISH,
    FINITE,
    GERMAN,
    LEADS,
    OTHERS,
    POSSESSIVES,
    PREDICATES,
    PREPOSITIONS,
    PRONOUNS,
    QUESTION,
    RELATIONAL,
    SAME,
    SUBJECTS,
    THANKS,
    WITH_THANKS,
)

# What a question lacks: the noun of a pronoun, or the question that a fragment is a part of.
Need = Literal["pronoun", "fragment"]

STRUCTURE = ENGLISH | GERMAN
_EMPTY = STRUCTURE | PREDICATES | RELATIONAL
_LONGEST_WORD = 64
# Of one turn: a question says what it is about at its end as often as at its start.
_TURN_CHARACTERS = 2000
_LONGEST_FRAGMENT = 6

_WORD = re.compile(r"[^\W_][\w./-]*[^\W_](?:['\u2019][^\W\d_]+)?|[^\W_](?:['\u2019][^\W\d_]+)?")
_OTHER_SCRIPT = re.compile(r"[^\W\d_a-zA-ZªºÀ-ɏ]")
_ABOUT = re.compile(
    r"^(?:(?:and|but|or|so|und|aber|oder)\s+)?"
    r"(?:(?:what|how) about|what of|what if|was ist mit|was ist bei|wie ist es (?:mit|bei)|"
    r"wie sieht es (?:mit|bei|für)|wie steht es (?:um|mit)|was, wenn|und wenn|gilt (?:das|dies))\b",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"^(?:please\s+|bitte\s+)?(?:(?:can|could) you\s+)?"
    r"(?:(?:tell|give|show) me (?:more|an? |some )|go on|more\b|anything (?:else|more)|another\b|"
    r"an example|mehr\b|noch (?:ein|etwas|mehr)|weiter\b|erzähl|gib mir (?:ein|mehr)|ein beispiel)",
    re.IGNORECASE,
)
# "Is it possible to …", "ist es erlaubt, … zu …": the pronoun stands for what follows.
_EXPLETIVE = re.compile(
    r"^(?:(?:is|was|would|will|ist|war|wäre|wird) )?(?:it|es)(?: be)? (?:\w+ ){1,2}"
    r"(?:to|that|if|when|whether|for|zu|dass|wenn|ob|im|in|einen?|eine[mr]?|den|das|die)\b"
)


def words_of(text: str) -> list[str]:
    """The words of a text, in order, of its first 2000 characters."""
    return _WORD.findall(text[:_TURN_CHARACTERS])


def small(word: str) -> str:
    """A word in small letters, with one kind of apostrophe."""
    return word.lower().replace("\u2019", "'")


def content_words(text: str) -> list[str]:
    """The words of a text that are not there for its structure alone, as written and in order,
    without possessive 's; of its first 2000 characters."""
    found = (re.sub(r"['\u2019]s$", "", word) for word in words_of(text))
    return [word for word in found if len(word) <= _LONGEST_WORD and small(word) not in STRUCTURE]


def language_of(text: str) -> Literal["en", "de", "other"] | None:
    """By its structure words; None where it has none of any."""
    if _OTHER_SCRIPT.search(text[:_TURN_CHARACTERS]):
        return "other"
    words = [small(word) for word in words_of(text)]
    english, german, other = (
        sum(word in known for word in words) for known in (ENGLISH, GERMAN, OTHERS)
    )
    if other and other >= max(english, german):
        return "other"
    if english == german == 0:
        return None
    return "en" if english >= german else "de"


def acknowledges(text: str) -> bool:
    """Whether it asks nothing, but takes note or says thanks: "Ok, got it", "Danke!"."""
    words = {small(word) for word in words_of(text)}
    return "?" not in text and not words.isdisjoint(THANKS) and words <= THANKS | WITH_THANKS


def need_of(question: str, language: str | None) -> Need | None:
    """What a question lacks: what its pronoun stands for, or the frame of a fragment."""
    if language not in ("en", "de") or acknowledges(question):
        return None
    words = words_of(question)
    plain = [small(word) for word in words]
    if _ABOUT.match(question):
        return "fragment"
    if _MORE.match(question) and not telling(plain):
        return "fragment"
    content = [word for word in plain if word not in STRUCTURE]
    if _is_fragment(question, plain, content):
        return "fragment"
    if any(_stands_for_earlier(words, plain, place, language) for place in range(len(words))):
        return "pronoun"
    if not telling(plain):
        return "pronoun" if content else "fragment"
    return None


def telling(plain: Sequence[str]) -> list[str]:
    """The words that say what a question is about."""
    return [word for word in plain if word not in _EMPTY]


def _is_fragment(question: str, plain: Sequence[str], content: Sequence[str]) -> bool:
    """Whether it is part of a question: "for staff?", "and in winter?", "Sundays?"."""
    rest = list(plain)
    led = False
    while rest and rest[0] in LEADS:
        led = True
        rest.pop(0)
    if not rest or len(rest) > _LONGEST_FRAGMENT:
        return not rest
    if any(word in FINITE for word in rest):
        return False
    if any(word in QUESTION for word in rest):
        # "why?", "how many?", "since when?", "how often a year?": no verb, and hardly a noun.
        return not content or (
            len(rest) > len(content) + 1
            and len(telling(content)) <= 1
            and any(word in PREPOSITIONS | ARTICLES for word in rest)
        )
    if led or rest[0] in PREPOSITIONS:
        return True
    return question.rstrip().endswith("?") and len(content) <= 1


def _stands_for_earlier(
    words: Sequence[str], plain: Sequence[str], place: int, language: str
) -> bool:
    """Whether this word is a pronoun, or its like, whose noun is not in the question before it."""
    word = plain[place]
    if word in ("one", "ones") and plain[place - 1 : place] == ["which"]:
        return True
    if word in BESIDE:
        return len(telling(plain)) <= 1
    if word in SAME:
        rest = plain[place + 1 : place + 2]
        return place > 0 and plain[place - 1] in ARTICLES and not telling(rest)
    if word not in PRONOUNS[language]:
        return False
    if word in ("it", "es") and _EXPLETIVE.search(" ".join(plain[max(0, place - 1) :])):
        return False
    if language == "en" and word in ("that", "this", "these", "those"):
        if not _alone_english(plain, place):
            return False
    elif language == "de" and not _alone_german(words, plain, place):
        return False
    return not _resolved(words, plain, place, language)


def _alone_english(plain: Sequence[str], place: int) -> bool:
    """Whether "that", "this" … stands for something, rather than before its noun or a clause."""
    rest = plain[place + 1 :]
    if not rest:
        return True
    if plain[place] != "that":
        # "this" before a noun points back as well, where the noun says little: "this number".
        return not telling(rest[:1])
    # "does that work", "is that possible"; not "documents that prove", "know that a write".
    before = plain[place - 1] if place else ""
    return place == 0 or (before in FINITE and not telling(rest[:1])) or before in PREPOSITIONS


def _alone_german(words: Sequence[str], plain: Sequence[str], place: int) -> bool:
    """Whether "das", "es", "die" … stands for something, rather than being an article or filling a
    verb's place."""
    word = plain[place]
    after = words[place + 1] if place + 1 < len(words) else ""
    before = plain[place - 1] if place else ""
    if word == "es":  # "gibt es", "wie geht es": nothing is meant by it
        return before not in ("gibt", "geht", "ist", "sieht", "steht", "handelt", "gab")
    if word in ("das", "die", "der"):
        # An article has a noun behind it, and German nouns begin with a capital.
        return not any(later[0].isupper() for later in words[place + 1 :])
    if word == "damit":
        return before != "" and before not in ("kann", "können") and place < 5
    if word in ("ihr", "sie") and words[place] in ("Ihr", "Sie"):  # the polite form of "you"
        return False
    if word.startswith(("dies", "jene")):
        return not after or not telling([small(after)])
    return True


def _resolved(words: Sequence[str], plain: Sequence[str], place: int, language: str) -> bool:
    """Whether a noun that the pronoun can stand for comes before it in the question.

    "When a service stops, how long does it wait?": the pronoun is in another clause than its noun.
    "How does a store keep its vectors?": a possessive may be in the same one.
    """
    before = range(place)
    nouns = [one for one in before if _is_noun(words, plain, one, language)]
    if not nouns:
        return False
    if plain[place] in POSSESSIVES:
        return True
    return any(plain[one] in CLAUSE for one in range(nouns[0] + 1, place)) or (
        plain[0] in CLAUSE and nouns[0] > 0
    )


def _is_noun(words: Sequence[str], plain: Sequence[str], place: int, language: str) -> bool:
    if plain[place] in _EMPTY:
        return False
    if language == "de":
        return words[place][0].isupper() or any(map(str.isdigit, words[place]))
    before = plain[place - 1] if place else ""
    return before not in SUBJECTS and before not in ("who", "what")
