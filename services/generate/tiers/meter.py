"""What an attempt at a draft used, as far as is known: also where it fails, or nobody waits."""


class Meter:
    """The tokens of one attempt, which may be tried several times. Used in one thread.

    What a server never told is estimated, rather too high than too low: it may have read all of a
    prompt that it did not answer.
    """

    def __init__(self) -> None:
        self._told = (0, 0)
        self._open = (0, 0)  # of the try at hand
        self._estimated = (0, 0)  # of tries before it

    @property
    def prompt_tokens(self) -> int:
        """Tokens read so far."""
        return self._told[0] + self._estimated[0] + self._open[0]

    @property
    def completion_tokens(self) -> int:
        """Tokens written so far."""
        return self._told[1] + self._estimated[1] + self._open[1]

    @property
    def exact(self) -> bool:
        """Whether nothing of it is an estimate."""
        return self._open == self._estimated == (0, 0)

    def sent(self, prompt_tokens: int) -> None:
        """A prompt of about so many tokens is on its way; what an earlier try used stays."""
        self._estimated = (
            self._estimated[0] + self._open[0],
            self._estimated[1] + self._open[1],
        )
        self._open = (prompt_tokens, 0)

    def refused(self) -> None:
        """The prompt of this try was not read: it was turned away, or nobody was there."""
        self._open = (0, 0)

    def wrote(self, tokens: int = 1) -> None:
        """About so many more tokens were written."""
        self._open = (self._open[0], self._open[1] + tokens)

    def told(self, prompt_tokens: int, completion_tokens: int) -> None:
        """What this try used, by whoever counts it."""
        self._told = (self._told[0] + prompt_tokens, self._told[1] + completion_tokens)
        self._open = (0, 0)
