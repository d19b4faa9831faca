"""What is known about the request at hand: who asks, under which id, and until when."""

import time
from contextvars import ContextVar
from dataclasses import dataclass

from shared.auth import NOBODY, Principal
from shared.errors import ApiError


@dataclass(frozen=True)
class Deadline:
    """The moment at which the caller stops waiting, on this process's monotonic clock, seconds."""

    at: float

    @classmethod
    def after_ms(cls, milliseconds: float) -> "Deadline":
        """The deadline that many milliseconds from now."""
        return cls(time.monotonic() + milliseconds / 1000)

    def remaining_ms(self) -> float:
        """Milliseconds that are left; 0.0 once it has passed."""
        return max(0.0, (self.at - time.monotonic()) * 1000)

    def check(self) -> None:
        """Raise a 504 ApiError if the time is up."""
        if self.remaining_ms() <= 0:
            raise deadline_exceeded()


def deadline_exceeded() -> ApiError:
    """The error for work that the caller no longer waits for."""
    return ApiError(
        504, "deadline_exceeded", "the time given in x-deadline-ms ran out; allow more, or ask less"
    )


@dataclass(frozen=True)
class RequestContext:
    """One request's identity. `authorization` is the caller's header, passed on as it came."""

    request_id: str
    deadline: Deadline
    principal: Principal
    authorization: str | None = None


_NONE = RequestContext("-", Deadline(float("inf")), NOBODY)
_current: ContextVar[RequestContext] = ContextVar("refdesk_request", default=_NONE)


def current() -> RequestContext:
    """The request that this task works for; outside of one, an endless request of nobody."""
    return _current.get()


def enter(context: RequestContext) -> None:
    """Make `context` the current one in this task and those it starts."""
    _current.set(context)
