"""Every date is the source's: as far as the claim gives it, no day, month or year is another."""

import re
from dataclasses import dataclass
from functools import lru_cache

from services.generate.verification.checks.compared import Said, Source
from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.checks.plain import MONTHS

# As `plain` writes them. "May" and "March" alone, at the start of a sentence, are other words.
_DATE = re.compile(
    rf"(?<![\w.])(?:(?P<day>\d{{1,2}}) )?\b(?P<month>{'|'.join(MONTHS)})\b"
    r"(?: (?P<year>[12]\d{3})\b)?"
)
_OTHER_WORDS = frozenset({"May", "March"})


@dataclass(frozen=True)
class Date:
    """A date as far as it is given: ``May 2020`` has no day. month: its English name."""

    day: str | None
    month: str
    year: str | None

    def says(self, other: "Date") -> bool:
        """Whether all that the other date gives is given here, and is the same."""
        return (
            self.month == other.month
            and other.day in (None, self.day)
            and other.year in (None, self.year)
        )


@lru_cache(maxsize=1024)  # a whole passage is read again for each claim that is held against it
def dates(text: str) -> tuple[Date, ...]:
    """The dates of a plain text that name a month, in order; years alone are numbers."""
    found = []
    for match in _DATE.finditer(text):
        alone = match["day"] is None and match["year"] is None
        if not (alone and match["month"] in _OTHER_WORDS and match.start() == 0):
            found.append(Date(match["day"], match["month"], match["year"]))
    return tuple(found)


def held(said: Said, source: Source) -> list[Failure]:
    """Dates of the claim that no date of the source gives.

    The year may be that of the title, the heading or the sentence that the source is read with.
    """
    there = dates(source.plain)
    failures = []
    for date in dates(said.plain):
        without_year = Date(date.day, date.month, None)
        elsewhere = date.year in source.numbers and any(
            one.year is None and one.says(without_year) for one in there
        )
        if not elsewhere and not any(one.says(date) for one in there):
            written = " ".join(part for part in (date.day, date.month, date.year) if part)
            detail = f"{written} is not a date of the source: {short(said.text)}"
            failures.append(Failure(Check.DATE, detail, source.text))
    return failures
