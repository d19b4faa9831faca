"""Waits for a service that went away, as one does that is being started again."""

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
    """What `call` returns, tried again for `AWAY_S` seconds while the service is not there.

    call: may be repeated. say: told what it waits for. pause: between two tries; what it raises
    ends the waiting. Raises what the last try raised.
    """
    give_up = time.monotonic() + AWAY_S
    while True:
        try:
            return call()
        except CliError as error:
            away = isinstance(error, UnreachableError | BrokenOffError)
            away = away or (isinstance(error, RefusedError) and error.status == 503)
            if not away or time.monotonic() > give_up:
                raise
            say(f"{error}; waiting for it")
        pause(_LOOK_S)
