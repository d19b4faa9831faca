"""A server of others whose models we use: what goes wrong there, told as it concerns our caller.

Their statuses are about our request with our key, so none of them is our caller's: what is wrong
for good becomes a 502, what may pass a 503 once trying again did not help, what takes too long a
504. The key never reaches a message or a log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import SecretStr

from shared.client import Patience, ServiceClient
from shared.context import current
from shared.errors import ApiError, StartupError

# What passes by itself: request timeout, too many requests, and a server in trouble (529: busy).
_PASSING = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_MESSAGE_CHARACTERS = 500
_TOKEN_CHARACTERS = 4

Result = TypeVar("Result")


class RefusedError(ApiError):
    """The server will not take the request, however often it is sent: our 502.

    refused_with: the status that it gave.
    """

    def __init__(self, message: str, refused_with: int) -> None:
        super().__init__(502, "bad_upstream", message)
        self.refused_with = refused_with


def require_plain(name: str, base_url: str) -> None:
    """Raise StartupError for a URL of the server `name` that is none, or that holds a password."""
    if not base_url.startswith(("http://", "https://")):
        raise StartupError(f"the URL of {name} must start with http:// or https://")
    if "@" in base_url:  # it would be shown wherever the URL is
        raise StartupError(f"the URL of {name} must hold no user and no password: set its key")


class Upstream:
    """A client of one such server. Make one per process; close it at the end.

    name: the server in messages. timeout_s: for one try. attempts: how often what may pass is
    tried, each time after twice the pause, or the one that the server names, and never past the
    deadline of the request at hand. Raises StartupError for a URL that is none.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        key: SecretStr | None,
        *,
        timeout_s: float = 60,
        attempts: int = 4,
    ) -> None:
        require_plain(name, base_url)
        self._name = name
        self._key = key
        self._client = ServiceClient(
            name,
            base_url,
            external=True,
            key=key,
            patience=Patience(attempts, 0.2, 30, _PASSING, timeout_s),
        )

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON and return the parsed JSON answer. The call has to be safe to repeat.

        Raises ApiError 502 `bad_upstream` (a RefusedError where the server said no), 503
        `upstream_unavailable`, 504 `upstream_timeout`, or `deadline_exceeded` where the request at
        hand has no time left.
        """
        try:
            return await self._client.post(path, body)
        except ApiError as error:
            raise self._as_ours(error) from None

    async def get(self, path: str) -> Any:
        """GET and return the parsed JSON answer. Raises like `post`."""
        try:
            return await self._client.get(path)
        except ApiError as error:
            raise self._as_ours(error) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _as_ours(self, error: ApiError) -> ApiError:
        told = error.message
        if self._key is not None:  # some servers repeat the key that they don't know
            told = told.replace(self._key.get_secret_value(), "***")
        told = told[:_MESSAGE_CHARACTERS]
        if error.status in (401, 403):
            return RefusedError(
                f"{self._name} does not accept our key (status {error.status}): {told}",
                error.status,
            )
        if error.status in (408, 409, 429, 503, 529):
            # We have tried again already; the caller's client would only multiply it.
            return ApiError(
                503,
                "upstream_unavailable",
                told,
                headers={**error.headers, "x-should-retry": "false"},
            )
        if error.status < 500:
            return RefusedError(
                f"{self._name} refuses the request (status {error.status}): {told}", error.status
            )
        if error.status == 504:
            code = error.code if error.code == "deadline_exceeded" else "upstream_timeout"
            return ApiError(504, code, told)
        return ApiError(502, "bad_upstream", told)


def batches_of(texts: Sequence[str], most: int, characters: int) -> list[Sequence[str]]:
    """The texts in order, in runs for one call each: `most` and `characters` at most, or one longer
    text."""
    batches: list[Sequence[str]] = []
    start = size = 0
    for place, text in enumerate(texts):
        if place > start and (place - start == most or size + len(text) > characters):
            batches.append(texts[start:place])
            start, size = place, 0
        size += len(text)
    return [*batches, texts[start:]] if texts else []


class Lane:
    """The calls of all requests to one server: a few side by side, and a bound on what waits.

    at_once: calls that run side by side. queue_tokens: a request is taken while fewer tokens wait
    or are under way, however many it brings; only the server counts them, so that four characters
    are taken for one here.
    """

    def __init__(self, *, at_once: int, queue_tokens: int) -> None:
        self._at_once = at_once
        self._queue = queue_tokens
        self._calls = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def run(
        self,
        batches: Sequence[Sequence[str]],
        call: Callable[[Sequence[str]], Awaitable[Result]],
    ) -> list[Result]:
        """Call with each batch and return the results in their order.

        Raises ApiError 429 with Retry-After while the queue is full, 504 if the time is up, and
        what `call` raises; the first failure, or cancelling it, ends the other calls.
        """
        current().deadline.check()
        if self._waiting >= self._queue:
            raise ApiError(
                429,
                "queue_full",
                f"some {self._waiting} tokens are waiting already; try again in a moment",
                headers={"Retry-After": "1", "x-should-retry": "true"},
            )
        results: dict[int, Result] = {}
        todo = iter(enumerate(batches))

        # Each takes a batch when its last one is done. So a large request has few calls under way,
        # and a small one waits for those alone.
        async def work() -> None:
            for place, batch in todo:
                async with self._calls:
                    results[place] = await call(batch)

        tokens = sum(1 + len(text) // _TOKEN_CHARACTERS for batch in batches for text in batch)
        self._waiting += tokens
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, len(batches))):
                    group.create_task(work())
        except ExceptionGroup as failed:  # the first has ended the others
            raise failed.exceptions[0] from None
        finally:
            self._waiting -= tokens
        return [results[place] for place in range(len(batches))]
