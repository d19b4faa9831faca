"""What a learned router sees of a question's words. Pure functions.

Everything is read from the question's canonical form, so that capitals, spaces, line breaks and
courtesies change nothing. The librarian's vector of that form is what the router sees besides.
"""

import math
import re
import unicodedata
import zlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

_GREETING = r"(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day))(?: there| all)?"
_REQUEST = (
    r"(?:(?:could|can|would|will) you (?:be so kind as to |mind )?|i (?:was wondering|wonder) if "
    r"you (?:could|can|would) )"
)
_TELLING = (
    r"(?:(?:please |kindly )?(?:help me (?:with|to|out with)|tell me|telling me|let me know|"
    r"answer(?:ing)? (?:me|this(?: question)?|the following(?: question)?)))"
)
_WISH = (
    r"(?:i(?:'d| would) (?:like to (?:know|ask)|be (?:very )?grateful if you (?:could|would)|"
    r"appreciate it if you (?:could|would)))"
)
# What a question may begin and end with without asking for anything else.
_OPENING = re.compile(
    rf"^(?:{_GREETING}|please|kindly|{_REQUEST}(?:please |kindly )?(?:{_TELLING})?|{_TELLING}|"
    rf"{_WISH}(?: {_TELLING})?|excuse me|if you (?:don't|do not) mind)(?![\w'])[\s,.:;!-]*"
)
_CLOSING = re.compile(
    r"[\s,.;!-]*(?<![\w'])(?:please|kindly|cheers|if you (?:don't|do not) mind|"
    r"(?:many |and )?(?:thanks|thank you)(?: (?:so|very) much| a lot| in advance)*|"
    r"(?:best |kind )?regards)[\s.!]*$"
)
_OPTION = re.compile(r"(?:^|\s)\(?([a-h])[.):]\s")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_TERM = re.compile(r"\w{2,}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)")
_ROMAN = re.compile(r"\b(?:ii|iii|iv)\b")
_FORMULA = frozenset("=+^*/<>|{}[]()\u00b1\u00d7\u00f7")
_MATHEMATICAL = range(0x2190, 0x2400)  # arrows, operators and technical signs
_NEGATING = """not no never none neither nor without except cannot least false incorrect untrue"""
_NEGATIONS = frozenset(_NEGATING.split())
_SUPERLATIVES = frozenset(("best", "most", "likely", "worst"))
_PERSON_WORDS = "i my me you your he his him she her we our us"
_PERSONS = frozenset(_PERSON_WORDS.split())
_ASKING = ("what", "which", "who", "when", "where", "why", "how")
_LONG_WORD = 10  # letters

SURFACE = (
    "characters",
    "stem_characters",
    "option_characters",
    "word_length",
    "long_words",
    "distinct_words",
    "single_letters",
    "sentences",
    "numbers",
    "digits",
    "formula_signs",
    "formula_share",
    "negations",
    "negated",
    "question_mark",
    "blank",
    "quotes",
    "options",
    "numeric_options",
    "uneven_options",
    "condition",
    "statements",
    "roman_numerals",
    "superlative",
    "persons",
    *(f"asks_{word}" for word in _ASKING),
)


def canonical(question: str) -> str:
    """A question without what does not change it: capitals, runs of white space, courtesies.

    Never empty where the question is not: one that is nothing but courtesies is kept.
    """
    text = " ".join(unicodedata.normalize("NFKC", question).replace("\u2019", "'").lower().split())
    bare = text
    while (shorter := _CLOSING.sub("", _OPENING.sub("", bare))) != bare:
        bare = shorter
    return bare or text


def surface(text: str) -> NDArray[np.float64]:
    """The features named by `SURFACE` of a question in canonical form, float64 [len(SURFACE)].

    Lengths and counts are logarithms, shares are 0..1, the others are 0 or 1.
    """
    stem, options = _parts(text)
    words = _WORD.findall(text)
    count = max(1, len(words))
    known = set(words)
    characters = max(1, len(text))
    lengths = np.array([len(option) for option in options], np.float64)
    signs = sum(one in _FORMULA or ord(one) in _MATHEMATICAL for one in text)
    negations = sum(word in _NEGATIONS for word in words)
    seen = {
        "characters": np.log1p(len(text)),
        "stem_characters": np.log1p(len(stem)),
        "option_characters": np.log1p(lengths.sum()),
        "word_length": sum(map(len, words)) / count,
        "long_words": sum(len(word) >= _LONG_WORD for word in words) / count,
        "distinct_words": len(known) / count,
        "single_letters": sum(len(word) == 1 for word in words) / count,
        "sentences": np.log1p(len(_SENTENCE_END.findall(stem))),
        "numbers": np.log1p(len(_NUMBER.findall(text))),
        "digits": sum(one.isdigit() for one in text) / characters,
        "formula_signs": np.log1p(signs),
        "formula_share": signs / characters,
        "negations": np.log1p(negations),
        "negated": negations > 0,
        "question_mark": "?" in stem,
        "blank": "__" in text,
        "quotes": '"' in text or "\u201c" in text,
        "options": bool(options),
        "numeric_options": bool(options) and all(_NUMBER.search(option) for option in options),
        "uneven_options": lengths.std() / (1 + lengths.mean()) if options else 0.0,
        "condition": "if" in known,
        "statements": "statement" in known or "statements" in known,
        "roman_numerals": bool(_ROMAN.search(text)),
        "superlative": bool(known & _SUPERLATIVES),
        "persons": bool(known & _PERSONS),
        **{f"asks_{word}": word in known for word in _ASKING},
    }
    return np.array([seen[name] for name in SURFACE], np.float64)


def terms(text: str) -> dict[int, float]:
    """The words of a question in canonical form: 1 + ln(times) of each, by its CRC-32.

    A number stands for each word, so that a file of weights does not spell out what was asked.
    """
    counted = Counter(_TERM.findall(text))
    return {zlib.crc32(word.encode()): 1 + math.log(times) for word, times in counted.items()}


def _parts(text: str) -> tuple[str, list[str]]:
    """The question itself and its options; none where no list `a. … b. …` is in it."""
    found: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if match[1] == chr(ord("a") + len(found)):
            found.append(match)
    if len(found) < 2:
        return text, []
    ends = [match.start() for match in found[1:]] + [len(text)]
    options = [text[match.end() : end] for match, end in zip(found, ends, strict=True)]
    return text[: found[0].start()], options
