"""Writes what can be written in several ways in one, so that texts can be compared. Pure.

Dates, numbers, percentages, sums of money and contractions: ``May 12, 2020``, ``12 May 2020`` and
``2020-05-12`` are one, so are ``$1.2 million`` and ``1,200,000 dollars``, ``can't``, ``cannot`` and
``can not``.
The result is for machines; people are shown what was written.
"""

import re
from decimal import Decimal

from services.generate.reading.words import SYMBOLS, numbers

_MONTHS = """January February March April May June July August September October November
    December"""
MONTHS = tuple(_MONTHS.split())
_SHORT = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
MONTH = "|".join([*MONTHS, *(f"{short}\\b\\.?" for short in sorted(_SHORT, key=len, reverse=True))])
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_ISO = re.compile(
    r"(?<![\d-])(?P<y>[12]\d{3})-(?P<i>0[1-9]|1[0-2])-(?P<d>0[1-9]|[12]\d|3[01])(?!\d)"
)
_AMERICAN = re.compile(rf"\b(?P<m>{MONTH}) {_DAY}(?![\d:%]|[.,]\d)(?:,? (?P<y>[12]\d{{3}})\b)?")
_BRITISH = re.compile(
    rf"(?<![\d.,:/-])(?:\b[Tt]he )?\b{_DAY}(?: of)? (?P<m>{MONTH})(?![\w-])"
    r"(?:,? (?P<y>[12]\d{3})\b)?"
)
_OF_A_YEAR = re.compile(rf"\b(?P<m>{MONTH})(?: of|,)? (?P<y>[12]\d{{3}})\b")

_SPELT = """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SPELT_NUMBER = re.compile(
    rf"\b(?:(?:{_TENS})-(?:one|two|three|four|five|six|seven|eight|nine)|{'|'.join(_SPELT.split())})\b",
    re.IGNORECASE,
)
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LARGE = re.compile(
    r"(?<![\d.,:/-])\b(?P<n>\d+(?:\.\d+)?)[ -]"
    rf"(?P<power>{'|'.join(_POWERS)})\b",
    re.IGNORECASE,
)
_A_HUNDRED = re.compile(rf"\b(?:an?|one)[ -]({'|'.join(_POWERS)})\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MONEY = re.compile(r"(?:\bUS)?([$\u20ac\u00a3\u00a5])\s?(\d+(?:\.\d+)?)(?!\d)")
_PERCENT = re.compile(r"(?<=\d)\s?%|(?<=\d) per cent\b")

_CANNOT = re.compile(r"\b(can)(not)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(?P<verb>\w+)n['\u2019]t\b", re.IGNORECASE)
_IRREGULAR = {"ca": "can", "wo": "will", "sha": "shall"}
_IS = re.compile(r"\b(it|that|he|she|there|here|what|who)['\u2019]s\b", re.IGNORECASE)
_ENDINGS = {"re": "are", "ve": "have", "ll": "will", "m": "am"}
_VERB = re.compile(r"(?<=\w)['\u2019](re|ve|ll|m)\b")


def plain(text: str) -> str:
    """The text with its dates, numbers, sums and contractions written in one way.

    A date becomes ``12 May 2020``, as far as it is given; an amount its digits; a currency and a
    percentage the word behind the number.
    """
    text = _spelt_numbers(_contractions(text))
    return _amounts(_dates(text)) if _DIGIT.search(text) else text


def _dates(text: str) -> str:
    for pattern in (_ISO, _BRITISH, _AMERICAN, _OF_A_YEAR):
        text = pattern.sub(_date, text)
    return text


def _date(match: re.Match[str]) -> str:
    found = match.groupdict()
    month = MONTHS[int(found["i"]) - 1] if "i" in found else month_of(found["m"])
    day = str(int(found["d"])) if found.get("d") else ""
    return " ".join(part for part in (day, month, found["y"] or "") if part)


def month_of(written: str) -> str:
    """The month's full name: ``Sept.`` -> ``September``."""
    bare = written.rstrip(".")
    return _SHORT.get(bare, bare)


def _spelt_numbers(text: str) -> str:
    # A long s passes for an s where case is ignored, and is none in the list of words.
    text = _SPELT_NUMBER.sub(lambda match: next(iter(numbers(match[0])), match[0]), text)
    return _A_HUNDRED.sub(r"1 \1", text)


def _amounts(text: str) -> str:
    text = _LARGE.sub(_in_digits, _THOUSANDS.sub("", text))
    return _PERCENT.sub(" percent", _MONEY.sub(_sum, text))


def _in_digits(match: re.Match[str]) -> str:
    power = _POWERS.get(match["power"].lower())
    if power is None:  # with a long s, which passes for an s where case is ignored
        return match[0]
    exact = Decimal(match["n"]).scaleb(power)
    return f"{exact.normalize():f}"


def _sum(match: re.Match[str]) -> str:
    return f"{match[2]} {SYMBOLS[match[1]]}s"


def _contractions(text: str) -> str:
    text = _CANNOT.sub(r"\1 \2", text)
    if "'" not in text and "\u2019" not in text:
        return text
    text = _NOT.sub(_spelt_out, text)
    text = _IS.sub(r"\1 is", text)
    return _VERB.sub(lambda match: f" {_ENDINGS[match[1]]}", text)


def _spelt_out(match: re.Match[str]) -> str:
    verb = match["verb"]
    return f"{_IRREGULAR.get(verb.lower(), verb)} not"
