"""Placeholders for what is sensitive: in the prompt of one request, and back in its draft.

``ada@example.org`` becomes ``EMAIL_1_kqzvbx`` wherever it stands, so that a sentence keeps its form
and a model can tell one address from another. The letters at the end are drawn for each request: an
author of a document can't write a placeholder that would be restored. What has no form, such as
a person's name, is not found and so not masked: see reading/sensitivity.py.
"""

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Set
from string import digits
from typing import Any

import orjson

from services.generate.reading.sensitivity import Sensitive, find

_CONSONANTS = "bcdfghjklmnpqrstvwxz"  # so that no word comes out, and no number
_SALT_LETTERS = 6
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_MOST_DIGITS = 6


def draw_salt() -> str:
    """Letters for the placeholders of one request: one of 64 million."""
    return "".join(secrets.choice(_CONSONANTS) for _ in range(_SALT_LETTERS))


class Vault:
    """What was taken out of one request, by its placeholders. Not for use in several threads.

    kinds: what is masked. salt: see `draw_salt`; it stands in none of the texts.
    """

    def __init__(self, kinds: Set[Sensitive], salt: str) -> None:
        self._kinds = kinds
        self._salt = salt
        self._longest = max(map(len, Sensitive)) + _MOST_DIGITS + len(salt) + len("\\_\\_")
        self._count = Counter[Sensitive]()
        self._values: dict[str, str] = {}  # by placeholder
        self._placeholders: dict[tuple[Sensitive, str], str] = {}
        # A writer may change the case, and writes "\_" where it writes Markdown.
        form = rf"(?:{'|'.join(Sensitive)})\\?_[0-9]{{1,{_MOST_DIGITS}}}\\?_{salt}"
        self._pattern = re.compile(form, re.IGNORECASE)
        self._at_the_end = re.compile(form + r"\Z", re.IGNORECASE)

    def mask(self, text: str) -> str:
        """The text with a placeholder for each thing of the kinds, the same for the same."""
        parts, done = [], 0
        for match in find(text, self._kinds):
            value = text[match.start : match.end]
            parts += [text[done : match.start], self._placeholder(match.kind, value)]
            done = match.end
        return "".join((*parts, text[done:]))

    def mask_all(self, value: Any) -> Any:
        """A JSON value with every string in it masked, names of fields included.

        What an object has as ``arguments`` is JSON in a string: it is masked inside.
        """
        match value:
            case str():
                return self.mask(value)
            case Mapping():
                return {
                    self.mask(name): self._mask_json(one)
                    if name == "arguments" and isinstance(one, str)
                    else self.mask_all(one)
                    for name, one in value.items()
                }
            case list() | tuple():
                return type(value)(self.mask_all(one) for one in value)
            case _:
                return value

    def restore(self, text: str, *, as_json: bool = False) -> str:
        """The text with the values in their places. as_json: the text is JSON, and stays JSON.

        A placeholder that was never given out stays: verification lets no such draft pass.
        """

        def value(found: re.Match[str]) -> str:
            known = self._values.get(found[0].replace("\\", "").lower())
            if known is None:
                return found[0]
            return orjson.dumps(known).decode()[1:-1] if as_json else known

        return self._pattern.sub(value, text) if self._values else text

    def could_grow(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of a placeholder."""
        # The last letter of a whole one may be the first of another kind.
        if not self._values or self._at_the_end.search(text[-self._longest :]):
            return 0
        for size in range(min(self._longest, len(text)), 0, -1):
            tail = text[-size:].replace("\\_", "_").removesuffix("\\").lower()
            if tail and any(_begins(tail, f"{kind}_", f"_{self._salt}") for kind in Sensitive):
                return size
        return 0

    def _placeholder(self, kind: Sensitive, value: str) -> str:
        known = self._placeholders.get((kind, value))
        if known is None:
            self._count[kind] += 1
            known = f"{kind.upper()}_{self._count[kind]}_{self._salt}"
            self._placeholders[kind, value] = known
            self._values[known.lower()] = value
        return known

    def _mask_json(self, text: str) -> str:
        """JSON with its strings masked, and else as it was written: numbers keep each digit."""
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return self.mask(text)
        return _JSON_STRING.sub(self._mask_string, text)

    def _mask_string(self, written: re.Match[str]) -> str:
        value = orjson.loads(written[0])
        masked = self.mask(value)
        return written[0] if masked == value else orjson.dumps(masked).decode()


class Restorer:
    """Restores a draft that comes in pieces; holds back what may become a placeholder."""

    def __init__(self, vault: Vault, *, as_json: bool = False) -> None:
        self._vault = vault
        self._as_json = as_json
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be told by now, perhaps nothing."""
        text = self._held + piece
        end = len(text) - self._vault.could_grow(text)
        self._held = text[end:]
        return self._vault.restore(text[:end], as_json=self._as_json)

    def close(self) -> str:
        """The rest: the draft is whole."""
        rest, self._held = self._held, ""
        return self._vault.restore(rest, as_json=self._as_json)


def _begins(text: str, head: str, end: str) -> bool:
    """Whether a text may go on to be a placeholder: this head, a number, this end."""
    if len(text) <= len(head):
        return head.startswith(text)
    rest = text[len(head) :]
    after = rest.lstrip(digits)
    number = len(rest) - len(after)
    return (
        text.startswith(head)
        and 0 < number <= _MOST_DIGITS
        and after != end
        and end.startswith(after)
    )
