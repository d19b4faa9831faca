"""Every number is the source's, and counts the same thing there."""

from services.generate.reading.words import amounts, numbers
from services.generate.verification.checks.compared import Said, Source
from services.generate.verification.checks.failure import Check, Failure, short

# Words behind a number in which the source must have what the claim has next: one or two may stand
# between.
_REACH = 3


def held(said: Said, source: Source) -> list[Failure]:
    """Numbers that the source sentence, or what it is read with, does not have."""
    return [
        Failure(Check.NUMBER, f"{number} is not in the source: {short(said.text)}", source.text)
        for number in dict.fromkeys(numbers(said.plain))
        if number not in source.numbers
    ]


def counting(said: Said, source: Source) -> list[Failure]:
    """What a number of the claim counts must follow it in the source, where anything does."""
    there = [one for one in amounts(source.plain, _REACH) if one[1]]
    failures = []
    for number, following in amounts(said.plain, 1):
        counted = [words for value, words in there if value == number]
        if following and counted and not any(following[0] in words for words in counted):
            detail = f"{number} counts something else in the source: {short(said.text)}"
            failures.append(Failure(Check.NUMBER, detail, source.text))
    return failures
