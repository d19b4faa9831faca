"""Personal data and secrets in a text, masked: the form of an audit record's text `redacted`."""

import re

from services.generate.reading.sensitivity import find

_WORD = re.compile(r"\S+")


def masked(text: str) -> str:
    """`text` with each e-mail address, phone, IBAN and card number and the like as `[email]`, …

    What has no form, such as a name, stays; see reading/sensitivity.py for what is found.
    """
    parts = []
    done = 0
    for match in find(text):
        parts += [text[done : match.start], f"[{match.kind}]"]
        done = match.end
    return "".join((*parts, text[done:]))


def masked_excerpt(text: str) -> str:
    """`masked`, of a text that may have been cut: half an address is none that could be found."""
    *parts, last = text.split("…")
    return masked("".join([*(f"{_untorn(part)}…" for part in parts), last]))


def _untorn(text: str) -> str:
    """What stands before a cut, without what could be the beginning of something to be masked: the
    last word, and the words before it as far as each has a digit, an @ or a +."""
    start, torn = len(text), bool(text) and not text[-1].isspace()
    for word in reversed(list(_WORD.finditer(text))):
        if not torn and not any(one.isdigit() or one in "@+" for one in word[0]):
            break
        start, torn = word.start(), False
    return text[:start]
