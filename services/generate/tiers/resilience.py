"""What keeps a failing model server from being asked in vain: see docs/concepts/resilience.md.

This is the one place where a draft is tried again; the HTTP client below it tries once.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from services.generate.tiers.breaker import Breaker, Door, Health, Limits, Pass
from services.generate.tiers.completion import Completion
from services.generate.tiers.dialect import Dialect
from services.generate.tiers.endpoint import Stop
from services.generate.tiers.retries import RetryBudget, pause_s
from services.generate.tiers.upstream import Asked, Result, TimeLimits, TryError, ask
from shared.client import ServiceClient
from shared.context import current
from shared.errors import ApiError
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

TRIES = Counter(
    "refdesk_generate_upstream_tries_total",
    "Tries at a draft of a model server, by how they ended",
    ["tier", "model", "result"],
)
RETRIES = Counter(
    "refdesk_generate_upstream_retries_total",
    "Second tries that were wanted, by whether the budget allowed them",
    ["allowed"],
)
# By the model alone: /metrics asks for no key, and a server's address is not for everyone.
OPEN = Gauge(
    "refdesk_generate_breakers_open",
    "Servers of a model that are not asked, as they failed too often",
    ["model"],
)

# Of waiting for a first token in vain, after which a try that is stopped counts as a failure: with
# another server's text to compare; without, as a part of the time limit that it would have had.
_BEATEN_S = 1.0
_LATE_PART = 1 / 3


@dataclass(frozen=True)
class Server:
    """A model at a base URL: what fails as one. Two models of a policy may be the same server."""

    url: str
    model: str


@dataclass
class Resilience:
    """What the model servers of this process share: one budget of retries.

    breakers, dialects: of each server.
    """

    times: TimeLimits
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    budget: RetryBudget = field(default_factory=RetryBudget)
    breakers: dict[Server, Breaker] = field(default_factory=dict)
    dialects: dict[Server, Dialect] = field(default_factory=dict)

    @classmethod
    def by(cls, settings: Settings) -> "Resilience":
        """With the times of the settings."""
        return cls(
            TimeLimits(
                settings.model_connect_s,
                settings.model_first_token_s,
                settings.model_next_token_s,
                settings.model_draft_s,
            ),
            Limits(pause_s=settings.model_pause_s),
        )

    def door(self, server: Server) -> Door:
        """Whether a server is asked just now."""
        return self._breaker(server).door(self.clock())

    async def complete(
        self, client: ServiceClient, tier: str, server: Server, asked: Asked
    ) -> Completion:
        """A completion of `server`, which `client` reaches; tried twice at most.

        Raises ApiError: 503 `unreachable`; 503 `model_unavailable` where it has no time, or is not
        asked at all as it failed too often; 502 `bad_upstream` or `content_filtered` for what is
        no draft; 504 `upstream_timeout` or `deadline_exceeded`; what `asked.show` raises.
        """
        given = self._admit(server)
        self.budget.request()
        try:
            return await self._try(client, tier, server, asked, given)
        except TryError as failure:
            wait = self._pause(failure)
            if wait is None:
                raise failure.error from None
        await asyncio.sleep(wait)
        try:
            return await self._try(client, tier, server, asked, self._admit(server))
        except TryError as failure:
            raise failure.error from None

    async def _try(
        self, client: ServiceClient, tier: str, server: Server, asked: Asked, given: Pass
    ) -> Completion:
        began = self.clock()
        result, health = Result.STOPPED, Health.UNKNOWN
        try:
            dialect = self.dialects.setdefault(server, Dialect(self.clock))
            completion = await ask(client, server.url, asked, self.times, dialect)
            result, health = Result.DRAFTED, Health.GOOD
        except TryError as failure:
            result, health = failure.result, failure.result.health
            if result is Result.RATE_LIMITED and failure.rest_s > 0:
                self._breaker(server).rest(failure.rest_s, self.clock())
            raise
        except asyncio.CancelledError:
            if self._hung(asked, self.clock() - began):
                result, health = Result.TOO_SLOW, Health.BAD
            raise
        finally:
            TRIES.labels(tier, server.model, result.value).inc()
            self._settle(server, given, health)
        return completion

    def _hung(self, asked: Asked, waited_s: float) -> bool:
        """Whether a try that was stopped after so long tells against the server.

        Without that a server that hangs would be asked for ever by those who never wait until its
        own time limit. How long a caller waits must not tell: it is theirs to choose.
        """
        if asked.meter.completion_tokens:
            return False
        match asked.stopped():
            case Stop.BEATEN:
                return waited_s >= _BEATEN_S
            case Stop.LATE:
                return waited_s >= self.times.first_token_s * _LATE_PART
            case Stop.LEFT:
                return False

    def _pause(self, failure: TryError) -> float | None:
        """Seconds until the second try; None where there is none."""
        if not failure.again:
            return None
        remaining = current().deadline.remaining_ms() / 1000
        dice = random.random()  # noqa: S311 - jitter, no secret
        pause = pause_s(failure.rest_s, remaining, dice)
        if pause is None:
            return None
        allowed = self.budget.retry()
        RETRIES.labels(str(allowed).lower()).inc()
        return pause if allowed else None

    def _admit(self, server: Server) -> Pass:
        breaker, now = self._breaker(server), self.clock()
        given = breaker.admit(now)
        if given is None:
            raise ApiError(
                503,
                "model_unavailable",
                f"{server.url} is not asked for {breaker.wait_s(now):.0f} s: it failed too often, "
                "or asked for a rest",
            )
        return given

    def _settle(self, server: Server, given: Pass, health: Health) -> None:
        breaker = self._breaker(server)
        if not breaker.settle(given, health, self.clock()):
            return
        alike = [one for known, one in self.breakers.items() if known.model == server.model]
        OPEN.labels(server.model).set(sum(one.opened for one in alike))
        if breaker.opened:
            log.warning("server_not_asked", server=server.url, model=server.model)
        else:
            log.info("server_asked_again", server=server.url, model=server.model)

    def _breaker(self, server: Server) -> Breaker:
        return self.breakers.setdefault(server, Breaker(self.limits))
