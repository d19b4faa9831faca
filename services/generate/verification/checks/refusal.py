"""A sentence in which the writer speaks of itself, or says that it has no answer, is no answer."""

import re

from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.checks.plain import plain

_SOURCES = r"(?:sources?|passages?|documents?|texts?|contexts?|information)"
_REFUSAL = re.compile(
    r"(?:i am|we are) (?:(?:very|so) )?(?:sorry|afraid|unable|not able|not sure)\b"
    rf"|sorry\b|unfortunately,? (?:i\b|we\b|there (?:is|are) no|(?:the|these) {_SOURCES})"
    r"|as an? (?:ai|language|large language|assistant)\b"
    r"|(?:i|we) (?:cannot|can not|do not|will not|could not)\b"
    rf"|(?:the|these|this|none of the) (?:(?:provided|given) )?{_SOURCES} "
    r"(?:do not|does not|did not|can ?not)\b"
    r"|there is (?:no|not enough) (?:information|mention|answer)\b",
    re.IGNORECASE,
)


def found(text: str) -> list[Failure]:
    """A refusal. Ask it of what no passage says alone: a source may well begin with "I cannot"."""
    if _REFUSAL.match(plain(text).strip()) is None:
        return []
    return [Failure(Check.REFUSAL, f"the writer gives no answer: {short(text)}")]
