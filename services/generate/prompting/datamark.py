"""Datamarking: passages whose white space is a mark, so that a model can tell them from the rest.

Hines et al., "Defending Against Indirect Prompt Injection Attacks With Spotlighting" (2024), part
3.2. Pure functions, but for the draw.
"""

import secrets
from collections.abc import Iterable

# Of one or two tokens with most models, of no other meaning in running text, and no letters, which
# would make one word of two.
_MARKS = "\u00a6\u00a4\u00ac\u00af\u00b6\u00a7\u00a8\u00b8\u2021\u2020\u203b\u25ca\u2042"


def draw(texts: Iterable[str]) -> str:
    """A mark for one request, of those that stand in none of the texts where there are some."""
    used = set[str]().union(*texts)
    return secrets.choice([one for one in _MARKS if one not in used] or _MARKS)


def marked(text: str, mark: str) -> str:
    """The text in one line, the mark in place of its white space; none of the author's own stay."""
    return mark.join(text.replace(mark, " ").split())


def unmarked(text: str, mark: str) -> str:
    """A draft, or a piece of one, without the marks that its writer took over. No mark: as is."""
    return text.replace(mark, " ") if mark else text
