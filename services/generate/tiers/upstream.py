"""One try at a draft of a model server: asked once, read as it is written, each phase timed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.generate.tiers.breaker import Health
from services.generate.tiers.completion import Completion, RubbishError, ServerError
from services.generate.tiers.dialect import Dialect, refused, without
from services.generate.tiers.endpoint import Stop
from services.generate.tiers.meter import Meter
from services.generate.tiers.sse import Events, EventTooLongError
from shared.client import PeerError, ServiceClient, UnreachableError
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.retry_after import retry_after_s
from shared.telemetry import get_logger

log = get_logger(__name__)

_LONGEST_EVENT = 1024 * 1024  # bytes
_CHARACTERS_PER_TOKEN = 64  # what max_tokens can be at the utmost
# After the text: for the usage, and for the end of the body, without which the connection can't be
# used again. The draft is whole by then.
_USAGE_S = 1.0
_END_S = 0.1


class Result(StrEnum):
    """How a try ended, as the metric has it."""

    DRAFTED = "drafted"
    STOPPED = "stopped"  # nobody waits for it any more
    UNREACHABLE = "unreachable"
    BROKEN_OFF = "broken_off"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"  # for what the request, or our key, is
    FAILED = "failed"
    EMPTY = "empty"  # well formed, but without any text
    RUBBISH = "rubbish"
    TOO_SLOW = "too_slow"

    @property
    def health(self) -> Health:
        """What it says about the server."""
        return _HEALTH.get(self, Health.BAD)


_HEALTH = {
    Result.DRAFTED: Health.GOOD,
    Result.EMPTY: Health.GOOD,
    Result.STOPPED: Health.UNKNOWN,
    Result.RATE_LIMITED: Health.UNKNOWN,
    Result.REJECTED: Health.UNKNOWN,
}
# Statuses that may pass within moments; 529 is "busy" of some.
_PASSING = frozenset({502, 503, 504, 529})


@dataclass(frozen=True)
class TimeLimits:
    """Seconds: for connecting; from asking to the first token; between two tokens; in all."""

    connect_s: float
    first_token_s: float
    next_token_s: float
    draft_s: float


class TryError(Exception):
    """A try failed. error: what the caller is told. again: whether a second one may fare better.

    rest_s: how long the server wants to be left alone, 0.0 where it does not say.
    """

    def __init__(
        self, result: Result, error: ApiError, *, again: bool = False, rest_s: float = 0.0
    ) -> None:
        super().__init__(error.message)
        self.result = result
        self.error = error
        self.again = again
        self.rest_s = rest_s


@dataclass(frozen=True)
class Asked:
    """What is sent, and who is told of what comes back. text_tokens: of the prompt without its
    images, estimated. image_tokens: what this server may count for each of the `images`.

    show: see `DraftRequest`; what it raises ends the try and is let through. stopped, thinks_first:
    see there.
    """

    body: Mapping[str, Any]
    text_tokens: int
    max_tokens: int
    show: Callable[[str], None] | None
    meter: Meter
    stopped: Callable[[], Stop]
    images: int
    image_tokens: int
    thinks_first: bool

    @property
    def prompt_tokens(self) -> int:
        """All of the prompt, estimated."""
        return self.text_tokens + self.images * self.image_tokens


async def ask(
    client: ServiceClient, name: str, asked: Asked, limits: TimeLimits, dialect: Dialect
) -> Completion:
    """The completion of one try. name: of the server, for messages. Raises TryError.

    A server that refuses a field that can be spared is asked again without it at once: it has done
    nothing for the request yet. What it refuses is kept in `dialect`.
    """
    body, new = without(asked.body, dialect.left_out), frozenset[str]()
    while True:
        reading = _Reading(name, asked, limits)
        try:
            return await _once(client, reading, dialect, body, new)
        except PeerError as error:
            asked.meter.refused()
            named = refused(error.answered, error.told, body)
            if not named:
                raise reading.refused(error) from None
            body, new = without(body, named), new | named


async def _once(
    client: ServiceClient,
    reading: "_Reading",
    dialect: Dialect,
    body: Mapping[str, Any],
    new: frozenset[str],
) -> Completion:
    """The completion of one request. new: the fields that were refused just before, and that it is
    sent without. Raises TryError, and PeerError for one that is refused.
    """
    asked = reading.asked
    asked.meter.sent(asked.prompt_tokens)
    connect_s = reading.limits.connect_s
    try:
        async with (
            asyncio.timeout_at(reading.give_up) as clock,
            client.stream("/chat/completions", body, connect_s=connect_s) as pieces,
        ):
            # It takes the request without these fields: they were what it refused.
            if learned := new - dialect.left_out:
                dialect.learn(learned)
                fields, model = sorted(learned), body["model"]
                log.info("fields_left_out", server=reading.name, model=model, fields=fields)
            await reading.read(pieces, clock)
    except TimeoutError:
        if not reading.whole:
            raise reading.too_slow(clock.when()) from None
    except UnreachableError as error:
        if not reading.whole:
            raise reading.cut_off(error) from None
    return reading.checked()


class _Reading:
    """One answer while it is read. give_up: when, on the loop's clock."""

    def __init__(self, name: str, asked: Asked, limits: TimeLimits) -> None:
        self.name = name
        self.asked = asked
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._completion = Completion(thinks_first=asked.thinks_first)
        self._longest = asked.max_tokens * _CHARACTERS_PER_TOKEN
        self._begun = False  # whether there was a token
        remaining_s = current().deadline.remaining_ms() / 1000
        self._hurried = remaining_s < limits.draft_s  # by the caller
        self._end = self._loop.time() + min(limits.draft_s, remaining_s)
        self.give_up = min(self._end, self._loop.time() + limits.first_token_s)

    @property
    def whole(self) -> bool:
        """Whether all of the text has come, by what the server says."""
        return self._completion.done or self._completion.finish is not None

    async def read(self, pieces: AsyncIterator[bytes], clock: asyncio.Timeout) -> None:
        """Read to the end, or to the longest text that is read."""
        events = Events(_LONGEST_EVENT)
        try:
            async for piece in pieces:
                for event in events.feed(piece):
                    self._take(event, clock)
                if self._completion.size > self._longest:
                    self._completion.finish = "length"
                    return
            for event in events.end():
                self._take(event, clock)
        except (RubbishError, EventTooLongError):
            raise self._failure(
                Result.RUBBISH, 502, "bad_upstream", "answered something that is no chat completion"
            ) from None
        except ServerError as error:
            result = Result.REJECTED if error.rejected else Result.FAILED
            raise self._failure(result, 502, "bad_upstream", "failed while it wrote") from None

    def _take(self, event: bytes, clock: asyncio.Timeout) -> None:
        text, tokens = self._completion.feed(event)
        now = self._loop.time()
        if self._completion.done:
            clock.reschedule(min(self._end, now + _END_S))
        elif self._completion.finish is not None:
            clock.reschedule(min(self._end, now + _USAGE_S))
        elif tokens:
            clock.reschedule(min(self._end, now + self.limits.next_token_s))
        if tokens:
            self._begun = True
            self.asked.meter.wrote(tokens)
        self._show(text)

    def _show(self, text: str) -> None:
        if self.asked.show is None:
            return
        if self._completion.thought_aloud:
            log.warning("thoughts_shown", server=self.name, model=self.asked.body["model"])
            raise self._failure(
                Result.EMPTY,
                502,
                "bad_upstream",
                "wrote its thoughts as its answer: if it always does, its model in the policy "
                "needs thinks_first: true",
            )
        if text:
            self.asked.show(text)

    def checked(self) -> Completion:
        """The completion, if it is one. Raises TryError."""
        completion = self._completion
        if not self._begun and not self.whole:
            raise self._failure(
                Result.RUBBISH, 502, "bad_upstream", "answered something that is no chat completion"
            )
        if not self.whole:
            raise self._failure(
                Result.BROKEN_OFF, 502, "bad_upstream", "broke off before the end of its draft"
            )
        usage = completion.usage(self.asked.text_tokens, self.asked.images)
        if usage is not None:
            self.asked.meter.told(*usage)
        if completion.finish == "content_filter":
            raise self._failure(
                Result.REJECTED, 502, "content_filtered", "cut its draft by a content filter"
            )
        self._show(completion.close())
        if not completion.text and not completion.tool_calls:
            # No refusal, that would be in words. Where all tokens went into thinking the request
            # allowed too few: no fault of the server, which others shall be able to ask.
            cut = completion.finish == "length"
            wrote = self._begun or cut or (usage or (0, 0))[1] > 0
            result = Result.EMPTY if wrote else Result.RUBBISH
            why = f": max_tokens {self.asked.max_tokens} went into its thoughts" if cut else ""
            raise self._failure(result, 502, "bad_upstream", f"answered without any text{why}")
        return completion

    def too_slow(self, when: float | None) -> TryError:
        """The time was up at `when`: the caller's, or the server's own."""
        if when == self._end and self._hurried:
            return TryError(Result.STOPPED, deadline_exceeded())
        if when == self._end:
            what = f"did not end its draft within {self.limits.draft_s:g} s"
        elif self._begun:
            what = f"paused for over {self.limits.next_token_s:g} s within its draft"
        else:
            what = f"wrote nothing within {self.limits.first_token_s:g} s"
        return self._failure(Result.TOO_SLOW, 504, "upstream_timeout", what)

    def cut_off(self, error: UnreachableError) -> TryError:
        """There was no connection, or it broke."""
        if not error.connected:
            self.asked.meter.refused()
            return TryError(Result.UNREACHABLE, error, again=True)
        what = "broke off before the end of its draft" if self._begun else "closed the connection"
        return self._failure(Result.BROKEN_OFF, 502, "bad_upstream", what, again=not self._begun)

    def refused(self, error: PeerError) -> TryError:
        """The server answered with an error. Its words stay here: they may repeat our key."""
        status = error.answered
        told = f"answered status {status}"
        rest_s = max(0.0, retry_after_s(error.headers.get("Retry-After", "0")))
        if status == 429:
            failure = ApiError(503, "model_unavailable", f"{self.name} {told}")
            return TryError(Result.RATE_LIMITED, failure, again=True, rest_s=rest_s)
        if status in _PASSING:
            failure = ApiError(503, "model_unavailable", f"{self.name} {told}")
            return TryError(Result.FAILED, failure, again=True, rest_s=rest_s)
        result = Result.REJECTED if 400 <= status < 500 else Result.FAILED
        return self._failure(result, 502, "bad_upstream", told)

    def _failure(
        self, result: Result, status: int, code: str, what: str, *, again: bool = False
    ) -> TryError:
        return TryError(result, ApiError(status, code, f"{self.name} {what}"), again=again)
