"""The one HTTP client between services and to model servers.

It reuses connections, gives each call what is left of the request's deadline, passes on the
request id and the caller's key, and holds the retry of whole calls: of one that is safe to repeat,
after a connection failed or the other side answered that it may pass (see Patience). A streamed
call is tried once: whether it makes sense to ask again only its reader knows.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from pydantic import SecretStr

from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.retry_after import retry_after_s
from shared.settings import Settings

_CONNECT_SECONDS = 2.0
_ERROR_BYTES = 64 * 1024  # read of the error of a peer that streams


@dataclass(frozen=True)
class Patience:
    """How much a call bears with its peer.

    tries: of a call that may be repeated. pause_s: before the second try, where the peer names no
    time; doubled before each further one. max_pause_s: a peer that asks for more than that is given
    up on. statuses: answers after which it is tried again. timeout_s: for one try; None for all the
    time that the request has.
    """

    tries: int = 2
    pause_s: float = 0.1
    max_pause_s: float = 2.0
    statuses: frozenset[int] = frozenset({429, 503})
    timeout_s: float | None = None


OURS = Patience()


class PeerError(ApiError):
    """The peer's own error. answered: the status that it gave; ours may be another.

    told: the beginning of its body, as it came. It may repeat what was sent, keys too: to be looked
    at, never to be passed on.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        answered: int,
        *,
        told: bytes = b"",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message, param=param, headers=headers)
        self.answered = answered
        self.told = told


class UnreachableError(ApiError):
    """Nobody answers, or the connection broke. connected: whether there was one: then the peer may
    have read the request."""

    def __init__(self, message: str, *, connected: bool) -> None:
        super().__init__(503, "unreachable", message)
        self.connected = connected


class ServiceClient:
    """A client of one base URL. Make one per process and peer; close it at the end.

    service: the peer's name, for messages. settings: where the key is for calls that no caller
    started. external: a model server that is not ours; it gets `key` and never the caller's own.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        *,
        settings: Settings | None = None,
        external: bool = False,
        key: SecretStr | None = None,
        patience: Patience = OURS,
    ) -> None:
        self._service = service
        self._base = base_url.rstrip("/")
        self._external = external
        self._key = key or (settings.service_key if settings and not external else None)
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, Any], *, retry: bool = True) -> Any:
        """POST JSON and return the parsed JSON answer.

        retry: whether the call may be repeated; False for what must not happen twice.
        Raises ApiError: the peer's own for 4xx, 429 and 503; 502 for an answer that is not what it
        should be; 503 where nobody answers; 504 when the deadline, or the time for a try, passes.
        """
        return _parse(self._service, await self._call("POST", path, body, retry=retry))

    async def get(self, path: str) -> Any:
        """GET and return the parsed JSON answer. Raises like `post`."""
        return _parse(self._service, await self._call("GET", path, None, retry=True))

    async def get_bytes(self, path: str) -> bytes:
        """GET and return the body as it is. Raises like `post`."""
        return await self._call("GET", path, None, retry=True)

    @asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any], *, connect_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST JSON and give the body of the answer as it comes; tried once.

        connect_s: for connecting; how long the rest may take is up to the caller. Leaving before
        the end closes the connection at once.
        Raises PeerError for an answer that is an error, and UnreachableError, also while the body
        is read.
        """
        limit = aiohttp.ClientTimeout(total=None, connect=connect_s)
        try:
            response = await self._open("POST", path, body, limit)
        except (aiohttp.ClientError, ValueError) as error:
            raise self._unreachable(error) from None
        try:
            if response.status >= 300:
                raise _error(self._service, response, await _beginning(response.content))
            yield response.content.iter_any()
        except aiohttp.ClientError as error:
            raise self._unreachable(error) from None
        finally:
            response.release()  # closes the connection unless all was read

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, retry: bool
    ) -> bytes:
        patience = self._patience
        pause = patience.pause_s
        for left in reversed(range(patience.tries if retry else 1)):
            failure: ApiError
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            pause *= 2
            try:
                async with self._open(method, path, body, self._time_for_a_try()) as response:
                    data = await response.read()
                    if response.status < 300:
                        return data
                    failure = _error(self._service, response, data)
                    if response.status not in patience.statuses:
                        raise failure
                    wait = max(wait, retry_after_s(response.headers.get("Retry-After", "0")))
            # A connection that times out is both kinds of error, and the peer's fault.
            except aiohttp.ClientError as error:
                current().deadline.check()
                failure = self._unreachable(error)
            except TimeoutError:
                raise self._out_of_time() from None
            except ValueError as error:  # the URL can't be one, such as a name of 70 letters
                raise self._unreachable(error) from None
            late = wait > patience.max_pause_s or wait * 1000 > current().deadline.remaining_ms()
            if not left or late:
                raise failure
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the loop returns or raises")

    def _open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:  # made here: a session belongs to the running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        context = current()
        context.deadline.check()
        remaining = context.deadline.remaining_ms()
        headers = {"x-request-id": context.request_id}
        if remaining != float("inf"):
            headers["x-deadline-ms"] = str(int(remaining))
        if not self._external and context.authorization:
            headers["authorization"] = context.authorization
        elif self._key is not None:
            headers["authorization"] = f"Bearer {self._key.get_secret_value()}"
        if body is not None:
            headers["content-type"] = "application/json"
        return self._session.request(
            method,
            self._base + path,
            data=orjson.dumps(body) if body is not None else None,
            headers=headers,
            allow_redirects=False,
            timeout=timeout,
        )

    def _time_for_a_try(self) -> aiohttp.ClientTimeout:
        remaining = current().deadline.remaining_ms() / 1000
        seconds = min(remaining, self._patience.timeout_s or float("inf"))
        total = None if seconds == float("inf") else seconds
        return aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_SECONDS)

    def _out_of_time(self) -> ApiError:
        timeout = self._patience.timeout_s
        # Both clocks end at about the same moment: what is left then is rounding.
        if timeout is None or current().deadline.remaining_ms() < 1:
            return deadline_exceeded()
        message = f"{self._service} gave no answer within {timeout:g} s"
        return ApiError(504, "upstream_timeout", message)

    def _unreachable(self, error: Exception) -> UnreachableError:
        hint = (
            "check its URL" if self._external else f"start it: `refdesk up --only {self._service}`"
        )
        never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError)
        return UnreachableError(
            f"{self._service} at {self._base} does not answer ({type(error).__name__}); {hint}",
            connected=not isinstance(error, never),
        )


def _parse(service: str, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ApiError(
            502, "bad_upstream", f"{service} answered something that is not JSON"
        ) from None


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """The first bytes of a body, enough for an error."""
    try:
        return await content.readexactly(_ERROR_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial


def _error(service: str, response: aiohttp.ClientResponse, data: bytes) -> PeerError:
    """The peer's error as ours. Its 500 is our 502: the fault is not in this process; and so is a
    redirect, which none of our peers has reason to send.
    """
    status = response.status if response.status >= 400 and response.status != 500 else 502
    message, code, param = f"{service} answered status {response.status}", "bad_upstream", None
    try:
        told = orjson.loads(data)
        if isinstance(told.get("error"), dict):
            told = told["error"]
            message, code, param = str(told["message"]), str(told.get("code")), told.get("param")
        else:  # as TEI, Cohere and FastAPI tell it
            words = (told.get(field) for field in ("error", "message", "detail"))
            message = next((word for word in words if isinstance(word, str)), message)
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        pass
    headers = {}
    if "Retry-After" in response.headers:
        headers["Retry-After"] = response.headers["Retry-After"]
    told_at_first = data[:_ERROR_BYTES]
    return PeerError(
        status, code, message, response.status, told=told_at_first, param=param, headers=headers
    )
