"""Nothing of the prompt's own scaffolding shows."""

from collections.abc import Sequence

from services.generate.answer.checks.finding import Check, Failure


def found(draft: str, secrets: Sequence[str]) -> list[Failure]:
    """One failure if any of the prompt's secrets is in the draft. The detail does not repeat it."""
    if any(secret in draft for secret in secrets):
        return [Failure(Check.LEAK, "the draft shows its prompt")]
    return []
