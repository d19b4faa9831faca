"""How sensitive a text is: patterns of personal data and secrets. Pure functions.

Patterns find what has a form; a name or an illness has none. They are one of three voices (the
caller's mark and the corpora's classes are the others), of which the strictest counts.
"""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum


class Sensitive(StrEnum):
    """What is looked for."""

    EMAIL = "email"
    PHONE = "phone"
    IBAN = "iban"
    CARD = "card"
    SSN = "ssn"
    IP = "ip"
    SECRET = "secret"  # noqa: S105 - the kind, not one


ALL = frozenset(Sensitive)


@dataclass(frozen=True)
class Match:
    """Characters [start, end) of a text are of this kind."""

    kind: Sensitive
    start: int
    end: int


# Characters of an IBAN by country, as the registry of ISO 13616 gives them.
_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 "
    "NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 "
    "TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
)
_IBAN_LENGTHS = {one[:2]: int(one[2:]) for one in _IBANS.split()}


_TWICE = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of the digits of twice a digit


def has_luhn(text: str) -> bool:
    """Whether the digits of `text` satisfy Luhn's sum (ISO/IEC 7812-1, annex B)."""
    digits = [int(one) for one in text if one.isdigit()]
    return (
        len(digits) > 1 and (sum(digits[-1::-2]) + sum(_TWICE[d] for d in digits[-2::-2])) % 10 == 0
    )


def iban_length(text: str) -> int:
    """How many characters of `text`, from its first on, are an IBAN, spaces included; 0 for none.

    It has the length of its country and is 1 modulo 97 (ISO 13616); words may follow it.
    """
    places = [place for place, one in enumerate(text) if not one.isspace()]
    length = _IBAN_LENGTHS.get(text[:2].upper())
    if length is None or len(places) < length:
        return 0
    packed = [str(int(text[place], 36)) for place in places[:length]]
    return places[length - 1] + 1 if int("".join(packed[4:] + packed[:4])) % 97 == 1 else 0


# What a pattern finds is looked at again; each of these gives how much of it stands, 0 for nothing.


def _card(text: str) -> int:
    """The longest beginning, up to a separator, that may be one: an expiry may stand behind it."""
    places = [place for place, one in enumerate(text) if one.isdigit()]
    digits = "".join(text[place] for place in places)
    for count in range(len(digits), 12, -1):
        end = places[count - 1] + 1
        apart = count == len(digits) or places[count] > end
        if apart and len(set(digits[:count])) > 1 and has_luhn(digits[:count]):
            return end
    return 0


def _ssn(text: str) -> int:
    """The Social Security Administration gives no 000, 666 or 9xx, no group 00, no serial 0000."""
    area, group, serial = re.split(r"\D", text)
    given = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return len(text) if given else 0


def _phone(text: str) -> int:
    """The longest beginning, up to a separator, of 7 to 15 digits (E.164): others may follow it."""
    for end in reversed([one.end() for one in re.finditer(r"\d(?!\d)\)?", text)]):
        if 7 <= sum(one.isdigit() for one in text[:end]) <= 15:
            return end
    return 0


def _host(text: str) -> int:
    """An address of somebody: loopback, private and reserved ones are nobody's."""
    try:
        return len(text) if ipaddress.ip_address(text).is_global else 0
    except ValueError:
        return 0


@dataclass(frozen=True)
class _Form:
    """What a kind looks like. length: how much of a match stands, 0 for nothing of it.

    marks: a text without any of these, in small letters, has no match; none given: it may have one.
    """

    kind: Sensitive
    pattern: re.Pattern[str]
    length: Callable[[str], int] = len
    marks: tuple[str, ...] = ()


# In this order: of two that overlap, the first stands. Every repetition is bounded or of one class
# of characters, so that no text takes long. Where a match must not go on to the left, its first
# character is looked back at from behind: a pattern that begins with a class is searched quicker.
_FORMS = (
    _Form(
        Sensitive.SECRET,
        re.compile(
            r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:(?:(?!-----)[\s\S]){0,16384}-----END [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
            r"|[A-Za-z0-9+/=\s\\]{0,16384})"
            r"|\b(?:[spr]k[-_](?:live|test|proj|ant|or)[-_][A-Za-z0-9_-]{16,}"
            r"|sk-(?:svcacct-|admin-)?[A-Za-z0-9]{20,}"
            r"|A(?:KI|SI)A[0-9A-Z]{16}\b"
            r"|gh[pousr]_[A-Za-z0-9]{36,}"
            r"|github_pat_[A-Za-z0-9_]{22,}"
            r"|glpat-[A-Za-z0-9_-]{20,}"
            r"|xox[abprs]-[A-Za-z0-9-]{10,}"
            r"|AIza[0-9A-Za-z_-]{35}"
            r"|hf_[A-Za-z0-9]{30,}"
            r"|npm_[A-Za-z0-9]{36}"
            r"|pypi-[A-Za-z0-9_-]{50,}"
            r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"
            r"|(?<![\w-])eyJ[A-Za-z0-9_-]{10,4096}\.eyJ[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{10,4096})"
        ),
        marks=tuple(
            mark.lower()
            for mark in (
                "-----BEGIN",
                "sk-",
                "sk_",
                "pk-",
                "pk_",
                "rk-",
                "rk_",
                "AKIA",
                "ASIA",
                "ghp_",
                "gho_",
                "ghu_",
                "ghs_",
                "ghr_",
                "github_pat_",
                "glpat-",
                "xox",
                "AIza",
                "hf_",
                "npm_",
                "pypi-",
                "SG.",
                "eyJ",
            )
        ),
    ),
    _Form(
        Sensitive.SECRET,
        re.compile(
            r"(?<![^\W_])(?:password|passwd|pwd|passphrase|passwort|kennwort"
            r"|secret(?:[-_ ]access)?(?:[-_ ]key)?|api[-_ ]?key|access[-_ ]?token)[\"']?"
            r"\s{0,3}(?:=|:|\bis\b)\s{0,3}[\"']?(?=[^\s\"']{0,255}\d)[^\s\"']{8,256}",
            re.IGNORECASE,
        ),
        marks=("passw", "pwd", "passphrase", "kennwort", "secret", "key", "token"),
    ),
    _Form(
        Sensitive.SECRET,
        # Of an address with a user and a password, these two; what a header proves a caller by.
        re.compile(
            r"(?<=://)[^\s/:@]{1,64}:(?=[^\s/@]{0,127}\d)[^\s/@]{1,128}(?=@)"
            r"|(?<=bearer )(?=[^\s\d]{0,255}\d)[\w.~+/=-]{16,4096}",
            re.IGNORECASE,
        ),
        marks=("://", "bearer "),
    ),
    _Form(
        Sensitive.EMAIL,
        re.compile(
            # Domains may be internationalised, and words of a script without spaces may follow.
            r"(?<![\w.+-])[\w.+%-]{1,64}(?:'[\w.+%-]{1,64})?@(?:(?:(?!_)[\w-]){1,63}\.){1,8}"
            r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}(?![A-Za-z0-9_-])|[^\W\d_]{2,24}(?![\w-]))"
        ),
        marks=("@",),
    ),
    _Form(
        Sensitive.IBAN,
        # In fours, as it is printed, or without spaces.
        re.compile(
            r"[A-Za-z](?<!\w.)[A-Za-z]\d{2}"
            r"(?:(?: [A-Za-z0-9]{4}){2,7}(?: [A-Za-z0-9]{1,3})?|[A-Za-z0-9]{11,30})\b"
        ),
        iban_length,
    ),
    _Form(
        Sensitive.CARD,
        re.compile(r"[2-6](?<![\w.-].)(?:[ -]?\d){12,18}(?![\w-]|\.\d)"),
        _card,
    ),
    _Form(Sensitive.SSN, re.compile(r"\d(?<![\w-].)\d{2}([- ])\d{2}\1\d{4}(?![\w-])"), _ssn),
    _Form(
        Sensitive.IP,
        re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d)"),
        _host,
    ),
    _Form(
        Sensitive.IP,
        re.compile(r"(?<![\w.:])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)"),
        _host,
        marks=("2", "3"),  # global unicast is 2000::/3
    ),
    _Form(
        Sensitive.PHONE,
        # International, or a North American one in one of its written forms.
        re.compile(
            r"[+0](?<![\w+].)(?:(?<=\+)|0)[1-9]\d{0,2}\)?(?:[ ./-]?\(?\d{1,15}(?!\d)\)?){1,6}(?!\w)"
        ),
        _phone,
    ),
    _Form(
        Sensitive.PHONE,
        re.compile(
            r"[(2-9](?<![\w-].)(?:(?<=\()[2-9]\d{2}\) ?|\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w-])"
            r"|1(?<![\w.-].)[-. ](?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}(?![\w-])"
        ),
        _phone,
    ),
)


# What stands in print for a space, a hyphen and an @; one for one, so that places stay.
_AS_TYPED = str.maketrans("\u00a0\u2007\u2009\u202f\u2010\u2011\u2013\uff20", "    ---@")


def find(text: str, wanted: Set[Sensitive] = ALL) -> list[Match]:
    """All that is sensitive in a text, of the kinds that are wanted; in order, no overlaps."""
    found: list[Match] = []
    text = text.translate(_AS_TYPED)
    small = text.lower()
    for form in _FORMS:
        if form.kind not in wanted:
            continue
        if form.marks and not any(mark in small for mark in form.marks):
            continue
        # Matches of one form never overlap, so that only the earlier forms' must be looked through.
        starts = [one.start for one in found]
        new = [
            Match(form.kind, start, end)
            for start, end in _places(form, text)
            if not _overlaps(start, end, found, starts)
        ]
        if new:
            found = sorted(found + new, key=lambda one: one.start)
    return found


def _overlaps(start: int, end: int, found: Sequence[Match], starts: Sequence[int]) -> bool:
    """Whether one of the matches, which are in order and apart, has a character of [start, end)."""
    before = bisect_left(starts, end)
    return before > 0 and found[before - 1].end > start


def _places(form: _Form, text: str) -> Iterator[tuple[int, int]]:
    """Where a form is; what only looked like it may hide another right behind its beginning."""
    at = 0
    while match := form.pattern.search(text, at):
        length = form.length(match[0])
        if length:
            yield match.start(), match.start() + length
        at = match.start() + max(1, length)


def kinds(texts: Iterable[str]) -> frozenset[Sensitive]:
    """The kinds of what is sensitive in some texts."""
    return frozenset(match.kind for text in texts for match in find(text))
