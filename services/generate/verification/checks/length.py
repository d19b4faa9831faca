"""A draft has a reasonable length."""

from services.generate.verification.checks.failure import Check, Failure

# A writer is asked for at most 1,024 tokens, of about four characters each. Four times that is one
# that did not stop, and reading on would only cost time.
MOST_CHARACTERS = 16_384


def held(draft: str) -> list[Failure]:
    """A draft that is longer than any that was asked for."""
    if len(draft) <= MOST_CHARACTERS:
        return []
    detail = f"the draft has {len(draft)} characters, at most {MOST_CHARACTERS} are read"
    return [Failure(Check.LENGTH, detail)]
