"""Waits for a service that went away, as one does that is being started again."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from shared.cli.failures import BrokenOffError, CliError, RefusedError, UnreachableError

AWAY_S = 60.0
_LOOK_S = 0.4

Answer = TypeVar("Answer")


def patiently(
    call: Callable[[], Answer],
    say: Callable[[str], None],
    pause: Callable[[float], object] = time.sleep,
) -> Answer:
    """What `call` returns, tried again for `AWAY_S` seconds from its first failure while the
    service is not there.

    call: may be repeated. say: told what it waits for, the same only once in a row. pause: between
    two tries; what it raises ends the waiting. Raises what the last try raised.
    """
    give_up, told = math.inf, ""
    while True:
        try:
            return call()
        except CliError as error:
            away = isinstance(error, UnreachableError | BrokenOffError)
            away = away or (isinstance(error, RefusedError) and error.status == 503)
            now = time.monotonic()
            # Not from the call's beginning: one that hangs and then breaks off is tried again, too.
            give_up = min(give_up, now + AWAY_S)
            if not away or now >= give_up:
                raise
            if (message := f"{error}; waiting for it") != told:
                say(message)
            told = message
        pause(_LOOK_S)
