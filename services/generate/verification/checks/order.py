"""Names and numbers come in the order of the source: who did what to whom, and what is whose."""

import re
from collections.abc import Sequence
from itertools import takewhile

from services.generate.verification.checks.compared import LEANING, Said, Source, Word, read_words
from services.generate.verification.checks.failure import Check, Failure, short

# An opening phrase says when, where or in which case, and may as well stand at the end.
_OPENING = re.compile(
    r"(?P<phrase>(?:after|although|as|at|because|before|between|by|despite|during|following|for|"
    r"from|if|in|on|since|to|under|until|when|while|with) [^,;]{2,120}),\s(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_MOST_OPENINGS = 2  # "In 1354, when the king led an army, ..."
# "Charles, the king, ceded" is "The king, Charles, ceded".
_APPOSITION = re.compile(r"^(?P<one>[^,;]{2,60}), (?P<other>[^,;]{2,60}),(?= [a-z])")


def held(said: Said, source: Source) -> list[Failure]:
    """Those that claim and source share must come in the same order."""
    if _follows(said.words, source.words) or _follows(_after_name(said, source), source.words):
        return []
    turned = _APPOSITION.sub(r"\g<other>, \g<one>,", said.plain, count=1)
    if turned != said.plain and _follows(read_words(turned), source.words):
        return []
    # Both or neither: "After Louis, Charles ruled." is not "After Charles, Louis ruled."
    mine, theirs = _opening_last(said.plain), _opening_last(source.plain)
    if (mine or theirs) and _follows(
        read_words(mine or said.plain), read_words(theirs or source.plain)
    ):
        return []
    detail = f"names or numbers changed places: {short(said.text)}"
    return [Failure(Check.ORDER, detail, source.text)]


def _after_name(said: Said, source: Source) -> Sequence[Word]:
    """The claim behind a name of the context that it begins with, in place of a pronoun."""
    if not source.words or source.words[0].stem not in LEANING:
        return said.words
    stands = (word.mark and word.stem in source.around for word in said.words)
    return said.words[sum(takewhile(bool, stands)) :]


def _opening_last(text: str) -> str:
    """The sentence with its opening phrases at its end; "" if it has none."""
    moved = ""
    for _ in range(_MOST_OPENINGS):
        match = _OPENING.match(moved or text)
        if match is None:
            break
        moved = f"{match['rest'].rstrip('.!')} {match['phrase']}."
    return moved


def _follows(said: Sequence[Word], read: Sequence[Word]) -> bool:
    # A capital that begins a sentence is a name's only if it is one in the midst of the other.
    certain = {word.stem for word in (*said, *read) if word.mark and not word.opens}
    there = [word.stem for word in read if word.mark and word.stem in certain]
    shared = [word.stem for word in said if word.mark and word.stem in there]
    rest = iter(there)
    # `in` on an iterator moves it on: this asks whether `shared` is a subsequence of `there`.
    return all(mark in rest for mark in shared)
