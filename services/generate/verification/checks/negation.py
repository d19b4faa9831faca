"""Claim and source deny the same, and no word was turned into its opposite."""

from services.generate.reading.words import FORCES, negated, opposites
from services.generate.verification.checks.compared import Said, Source
from services.generate.verification.checks.failure import Check, Failure, short

# Content words behind a negation in which the source must have what the claim has next.
_REACH = 2


def held(said: Said, source: Source) -> list[Failure]:
    """Another number of negations, a negation of another word, an opposite, another force."""
    # Equal counts, not parity: who drops "without keys" and turns "refuses" round lies twice.
    mine, theirs = negated(said.plain, 1), negated(source.plain, _REACH)
    if len(mine) != len(theirs):
        detail = f"its negation differs from the source: {short(said.text)}"
        return [Failure(Check.POLARITY, detail, source.text)]
    if any(one and not any(one[0] in other for other in theirs) for one in mine):
        detail = f"it negates something else: {short(said.text)}"
        return [Failure(Check.POLARITY, detail, source.text)]
    turned = opposites(said.plain, source.plain) + opposites(said.plain, source.plain, FORCES)
    return [
        Failure(
            Check.POLARITY,
            f"'{word}' where the source has '{other}': {short(said.text)}",
            source.text,
        )
        for word, other in turned
    ]
