"""How often and how soon a failed try is repeated. No clock and no dice of its own.

A server in trouble gets worse by being asked twice. So retries are a tenth of the traffic at most,
whatever fails, and those of many requests don't come at the same moment: a pause is drawn evenly
from zero to its longest (full jitter, https://aws.amazon.com/builders-library/
timeouts-retries-and-backoff-with-jitter).
"""

_PER_RETRY = 10  # requests that earn one
_MOST_SAVED = 10  # retries that a quiet time may earn
_AT_FIRST = 3  # so that a desk with few questions has some

_PAUSE_S = 0.2
_LONGEST_WAIT_S = 2.0  # a server that asks for more is given up on: another may write


class RetryBudget:
    """A token bucket: of n requests at most n / 10 + 10 are tried again. Used in one thread."""

    def __init__(self) -> None:
        self._earned = _AT_FIRST * _PER_RETRY

    def request(self) -> None:
        """A request is made for the first time."""
        self._earned = min(self._earned + 1, _MOST_SAVED * _PER_RETRY)

    def retry(self) -> bool:
        """Whether one may be made again; if so, it is taken out of the budget."""
        if self._earned < _PER_RETRY:
            return False
        self._earned -= _PER_RETRY
        return True


def pause_s(asked_s: float, remaining_s: float, dice: float) -> float | None:
    """Seconds to wait before the second try; None where that makes no sense.

    asked_s: what the server asks for, 0.0 where nothing. remaining_s: until the deadline.
    dice: evenly from 0 to 1.
    """
    pause = asked_s + _PAUSE_S * dice
    return pause if asked_s <= _LONGEST_WAIT_S and pause < remaining_s else None
