"""Whether two wordings ask the same, by their words. Pure.

Vectors are blind to just what tells close questions apart: "agreement" and "disagreement", "from"
and "to", another year, a "not". So the words have to be the same, in their order, but for what
never changes a question: capitals, punctuation, courtesies, articles and the endings of words.
tests/quality/semantic_cache.py measures what less would let through.
"""

import re
from functools import lru_cache

from services.generate.reading.words import numbers, stem, words
from services.generate.routing.learned.features import canonical

# Signs that touch a word or a number: C++ is not C, 5% not 5, -v not v, "x > 5" not "x < 5". At the
# end of a word a dot or a hyphen is punctuation.
_SIGNS = re.compile(r"((?:[+#$€£¥%<>=/*^&|~@]|!(?==))+|(?<!\w)[-.]+(?=\w)|(?<=\w)[-.](?=\w))")
_ARTICLES = frozenset(("a", "an", "the"))


def asks_the_same(one: str, other: str) -> bool:
    """Whether two questions differ in nothing that could ask for something else."""
    return _said(one) == _said(other)


@lru_cache(maxsize=1024)
def _said(question: str) -> tuple[list[str], list[str], list[tuple[int, str]]]:
    """The stems of all words but articles, the numbers, and the signs around both."""
    text = canonical(question)
    found = [word for word in words(text) if word not in _ARTICLES]
    return (
        [stem("what" if word == "which" else word) for word in found],
        numbers(text),
        _signs(text),
    )


def _signs(text: str) -> list[tuple[int, str]]:
    """Each run of signs, behind how many words that count."""
    found = []
    count = 0
    for place, part in enumerate(_SIGNS.split(text)):
        if place % 2:
            found.append((count, part))
        else:
            count += sum(word not in _ARTICLES for word in words(part))
    return found
