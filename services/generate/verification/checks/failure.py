"""What a check returns."""

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """Everything that can be wrong with a draft."""

    EMPTY = "empty"
    LENGTH = "length"
    LEAK = "leak"
    REFUSAL = "refusal"
    CITATION = "citation"
    SUPPORT = "support"
    NUMBER = "number"
    DATE = "date"
    NAME = "name"
    ORDER = "order"
    POLARITY = "polarity"
    QUOTE = "quote"
    SCHEMA = "schema"
    TOOLS = "tools"
    SIMILARITY = "similarity"
    ENTAILMENT = "entailment"


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong.

    detail: where and what, for people; it quotes the draft alone. evidence: the source's sentence
    that the claim was held against, as written; "" where there is none.
    """

    check: Check
    detail: str
    evidence: str = ""


def short(text: str) -> str:
    """A text in quotation marks for a detail, cut at 120 characters."""
    return f"\u201c{text if len(text) <= 120 else text[:119] + '…'}\u201d"
