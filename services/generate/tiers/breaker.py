"""A circuit breaker: whether a server is worth asking just now. `now` is given, it has no clock.

Closed, it lets all through and counts what fails within a rolling window. From a rate of failures
on it opens and lets nobody through; after a pause exactly one try, the probe, shows whether the
server is back. See M. Nygard, Release It!, chapter 5.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What the end of a try says about its server."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # the request's own fault, or its caller left


class Door(StrEnum):
    """Whether the server may be asked. RESTING: it said itself until when not to."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"
    RESTING = "resting"


@dataclass(frozen=True)
class Limits:
    """When it opens, and for how long.

    window_s: failures count for so long. minimum: tries in the window below which it stays closed.
    rate: of failures among them from which on it opens, 0..1. pause_s: until a probe.
    longest_rest_s: a server that wants to rest for longer is asked again after that.
    """

    window_s: float = 30.0
    minimum: int = 5
    rate: float = 0.5
    pause_s: float = 10.0
    longest_rest_s: float = 60.0


@dataclass(frozen=True)
class Pass:
    """Leave to try. epoch: since which opening or closing; of an older one the end says nothing."""

    epoch: int
    probe: bool


class Breaker:
    """The breaker of one server. `now`: seconds of one monotonic clock. Used in one thread.

    Every pass that `admit` gives must be settled once, whatever becomes of the try.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ends: deque[tuple[float, bool]] = deque()  # when, and whether it failed
        self._failed = 0  # of them
        self._epoch = 0
        self._open_until: float | None = None  # None while closed
        self._probing = False
        self._rest_until = float("-inf")

    @property
    def opened(self) -> bool:
        """Whether it has opened and not closed again; a rest does not count."""
        return self._open_until is not None

    def door(self, now: float) -> Door:
        """Its state."""
        if now < self._rest_until:
            return Door.RESTING
        if self._open_until is None:
            return Door.CLOSED
        return Door.HALF_OPEN if now >= self._open_until else Door.OPEN

    def wait_s(self, now: float) -> float:
        """Seconds until somebody is let through again, as far as is known; 0.0 for now."""
        return max(0.0, self._rest_until - now, (self._open_until or now) - now)

    def admit(self, now: float) -> Pass | None:
        """Leave for one try, or None: then the server must not be asked."""
        match self.door(now):
            case Door.CLOSED:
                return Pass(self._epoch, probe=False)
            case Door.HALF_OPEN if not self._probing:
                self._probing = True
                return Pass(self._epoch, probe=True)
        return None

    def settle(self, given: Pass, health: Health, now: float) -> bool:
        """The try that `given` was for has ended; whether that opens or closes it."""
        if given.epoch != self._epoch:
            return False
        before = self.opened
        if given.probe:
            self._probing = False
            if health is Health.GOOD:
                self._turn(None)
            elif health is Health.BAD:
                self._turn(now + self._limits.pause_s)
        elif health is not Health.UNKNOWN:
            self._count(failed=health is Health.BAD, now=now)
        return self.opened != before

    def rest(self, seconds: float, now: float) -> None:
        """The server asks to be left alone for so long."""
        until = now + min(seconds, self._limits.longest_rest_s)
        self._rest_until = max(self._rest_until, until)

    def _count(self, *, failed: bool, now: float) -> None:
        self._ends.append((now, failed))
        self._failed += failed
        while self._ends[0][0] <= now - self._limits.window_s:
            self._failed -= self._ends.popleft()[1]
        enough = len(self._ends) >= self._limits.minimum
        if failed and enough and self._failed >= self._limits.rate * len(self._ends):
            self._turn(now + self._limits.pause_s)

    def _turn(self, open_until: float | None) -> None:
        """Open until then, or close."""
        self._open_until = open_until
        self._epoch += 1
        self._ends.clear()
        self._failed = 0
