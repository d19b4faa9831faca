"""Nothing of the prompt's own scaffolding shows."""

from collections.abc import Sequence

from services.generate.prompting.prompt import shows
from services.generate.verification.checks.failure import Check, Failure


def found(draft: str, secrets: Sequence[str]) -> list[Failure]:
    """One failure if any of the prompt's secrets is in the draft.

    Placeholders hold one, too: what is left of them when a draft was restored, its writer invented.
    The detail does not repeat it.
    """
    if shows(draft, secrets):
        return [Failure(Check.LEAK, "the draft shows its prompt")]
    return []
