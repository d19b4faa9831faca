"""What stands in quotation marks is in the passage.

Compared are the words: case, punctuation, kinds of quotation marks and white space do not count,
and up to 60 words may be left out where "..." or "[...]" says so. Bounds of what else may differ:
one word in ten may be another, missing or too many, rounded down (so nothing in quotes of fewer
than ten words), and never a number, a name, a negation, or one that turns or bends a statement.
Nothing may differ where the words of the quote times those of the passage are over 20,000.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from services.generate.reading.words import FORCES, OPPOSITES, STOP_WORDS, is_negation, quotes
from services.generate.verification.checks.compared import Page, Said
from services.generate.verification.checks.failure import Check, Failure, short

_WORDS_PER_DIFFERENCE = 10
_NEVER = 1000  # what a difference in a word costs that must not differ
_MOST_LEFT_OUT = 60  # words that one "..." may stand for
# Words of the quote times words of the passage: what is longer must stand word for word.
_MOST_WORK = 20_000
_ELLIPSIS = re.compile(r"\[?(?:\.\.\.|\u2026|\. \. \.)\]?")
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W_]+(?:['\u2019][^\W_]+)*")


def held(said: Said, pages: Sequence[Page]) -> list[Failure]:
    """Quotes of the claim, as written, that none of these passages has."""
    return [
        Failure(Check.QUOTE, f"these words are in no cited passage: {short(quote)}")
        for quote in dict.fromkeys(quotes(said.text))
        if not any(_stands(quote, _words(page.text)) for page in pages)
    ]


def _stands(quote: str, page: tuple[str, ...]) -> bool:
    start, reach = 0, len(page)
    for part in _ELLIPSIS.split(quote):
        wanted = _words(part)
        if not wanted:
            continue
        end = _ends(wanted, page[start:reach])
        if end is None:
            return False
        start += end
        reach = start + _MOST_LEFT_OUT + len(_words(quote))
    return True


def _ends(wanted: tuple[str, ...], page: tuple[str, ...]) -> int | None:
    """Where the words end in the page, where they stand best; None where not well enough.

    Sellers' algorithm: the edit distance of a pattern to the best of all stretches of a text
    (Journal of Algorithms 1, 1980), on words.
    """
    text = _spaced(page)
    at = text.find(_spaced(wanted))
    if at >= 0:
        return text.count(" ", 0, at) + len(wanted)
    allowed = len(wanted) // _WORDS_PER_DIFFERENCE
    if not allowed or len(wanted) * len(page) > _MOST_WORK:
        return None
    there = {word.lower() for word in page}
    if sum(word.lower() not in there for word in wanted) > allowed:
        return None
    costs, wanted_costs = [_cost(word) for word in page], [_cost(word) for word in wanted]
    column = [0]
    for cost in wanted_costs:
        column.append(column[-1] + cost)
    best: tuple[int, int] | None = None
    for place, (read, cost) in enumerate(zip(page, costs, strict=True), start=1):
        diagonal, column[0] = column[0], 0
        for row, word in enumerate(wanted, start=1):
            same = word.lower() == read.lower()
            changed = diagonal + (0 if same else max(wanted_costs[row - 1], cost))
            diagonal = column[row]
            column[row] = min(changed, column[row] + cost, column[row - 1] + wanted_costs[row - 1])
        if column[-1] <= allowed and (best is None or column[-1] < best[0]):
            best = (column[-1], place)
    return best[1] if best else None


def _cost(word: str) -> int:
    lower = word.lower()
    name = word[0].isupper() and lower not in STOP_WORDS
    turning = lower in OPPOSITES or lower in FORCES or is_negation(lower)
    return _NEVER if name or turning or word[0].isdigit() else 1


@lru_cache(maxsize=256)  # a passage is read again for each quote that cites it
def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("\u2019", "'") for word in _WORD.findall(text))


@lru_cache(maxsize=256)
def _spaced(words: tuple[str, ...]) -> str:
    """In lower case, each between spaces."""
    return f" {' '.join(words).lower()} "
