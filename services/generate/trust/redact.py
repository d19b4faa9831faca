"""Personal data and secrets in a text, masked: the form of an audit record's text `redacted`."""

import re

from services.generate.routing.sensitivity import find

# What stands before a cut, as far as it could be the beginning of something that has to be masked.
_TORN = re.compile(r"(?:\S*[\d@+]\S*\s+)*\S*…")


def masked(text: str) -> str:
    """`text` with each e-mail address, phone, IBAN and card number and the like as `[email]`, …

    What has no form, such as a name, stays; see routing/sensitivity.py for what is found.
    """
    parts = []
    done = 0
    for match in find(text):
        parts += [text[done : match.start], f"[{match.kind}]"]
        done = match.end
    return "".join((*parts, text[done:]))


def masked_excerpt(text: str) -> str:
    """`masked`, of a text that may have been cut: half an address is none that could be found."""
    return masked(_TORN.sub("…", text))
