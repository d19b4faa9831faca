"""Every name is the source's, and no word stands for another there."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from services.generate.verification.checks.compared import LEANING, Page, Said, Source, Word
from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.checks.plain import MONTHS

# Words of a sentence that are compared place by place: what takes longer is a table or a dump.
_MOST_WORDS = 400
# Of words without a capital only one or two at a time, word for word: a longer run that differs is
# more often another wording.
_MOST_WORDS_FOR_WORDS = 2


def held(said: Said, source: Source, pages: Sequence[Page]) -> list[Failure]:
    """Capitalised words that are neither in the source sentence nor in what it leans on.

    The word that begins the claim, unless the passage has it as a name, need only be in the
    passage: whether a name or a beginning, it must come from somewhere.
    """
    here = source.stems | source.around
    return [
        Failure(Check.NAME, f"'{name.text}' is not in the source: {short(said.text)}", source.text)
        for name in _names(said)
        if name.stem not in here and not (name.opens and _begins(name.stem, pages))
    ]


def in_place(said: Said, source: Source, pages: Sequence[Page]) -> list[Failure]:
    """Words from elsewhere in the passage where the source sentence has another.

    A pronoun may be written out as the name it stands for. "Tesla moved to Graz", from a source
    that says "He moved to Paris" after a sentence about Graz, is another matter. So is "rerank"
    for "embed": not every name has a capital. Words that the passage does not have anywhere may be
    the writer's own.
    """
    spoken = frozenset(word.stem for word in said.words)
    elsewhere = frozenset(
        one for one in spoken - source.stems if any(one in page.whole.own for page in pages)
    )
    if not any(_is_strange(word, source, elsewhere) for word in said.words):
        return []
    if max(len(said.words), len(source.words)) > _MOST_WORDS:
        detail = f"too long to find the places of its names: {short(said.text)}"
        return [Failure(Check.NAME, detail, source.text)]
    failures = []
    for mine, theirs in _replaced(said.words, source.words):
        if any(word.stem in LEANING for word in theirs):
            continue
        lost = [word for word in theirs if word.stem not in spoken]
        strange: list[Word] = []
        if any(word.mark for word in lost):
            strange = [word for word in mine if word.mark and word.stem not in source.stems]
        elif len(mine) == len(theirs) <= _MOST_WORDS_FOR_WORDS:
            strange = [
                one
                for one, other in zip(mine, theirs, strict=True)
                if one.stem in elsewhere and other in lost and other.stem in source.own
            ]
        if strange:
            detail = f"'{strange[0].text}' stands where the source has another: {short(said.text)}"
            failures.append(Failure(_check_of(strange[0]), detail, source.text))
    return failures


def _begins(stem: str, pages: Sequence[Page]) -> bool:
    """Whether the passages have the word, and nowhere as a name."""
    return not any(stem in page.names for page in pages) and any(
        stem in page.whole.stems or stem in page.whole.around for page in pages
    )


def _check_of(word: Word) -> Check:
    if word.number:
        return Check.NUMBER
    return Check.NAME if word.mark else Check.SUPPORT


def _is_strange(word: Word, source: Source, elsewhere: frozenset[str]) -> bool:
    return word.stem in elsewhere or (word.mark and word.stem not in source.stems)


def _names(said: Said) -> Iterator[Word]:
    """Each name once; that with which the claim begins, if it comes again, as it comes again."""
    seen: dict[str, Word] = {}
    for word in said.words:
        name = word.mark and not word.number and word.text not in MONTHS  # months: see `dates`
        if name and (word.stem not in seen or seen[word.stem].opens):
            seen[word.stem] = word
    yield from seen.values()


def _replaced(
    said: Sequence[Word], read: Sequence[Word]
) -> Iterator[tuple[Sequence[Word], Sequence[Word]]]:
    """Runs of words that stand in the same place, between words that are the same."""
    matcher = SequenceMatcher(
        None, [word.stem for word in said], [word.stem for word in read], autojunk=False
    )
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "replace":
            yield said[a:b], read[c:d]
