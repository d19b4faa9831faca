"""Whether two wordings ask the same, by their words. Pure.

Vectors are blind to just what tells close questions apart: "agreement" and "disagreement", "from"
and "to", another year, a "not". So the words have to be the same, in their order, but for what
never changes a question: capitals, punctuation, courtesies, articles and the endings of words.
tests/quality/semantic_cache.py measures what less would let through.
"""

from functools import lru_cache

from services.generate.reading.words import numbers, stem, words
from services.generate.routing.learned.features import canonical

_ARTICLES = frozenset(("a", "an", "the"))


def asks_the_same(one: str, other: str) -> bool:
    """Whether two questions differ in nothing that could ask for something else."""
    return _said(one) == _said(other)


@lru_cache(maxsize=1024)
def _said(question: str) -> tuple[list[str], list[str]]:
    """The stems of all words but articles, and the numbers with their signs."""
    text = canonical(question)
    found = [word for word in words(text) if word not in _ARTICLES]
    return [stem("what" if word == "which" else word) for word in found], numbers(text)
