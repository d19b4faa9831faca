"""The one HTTP client between services and to model servers.

It reuses connections, gives each call what is left of the request's deadline, passes on the
request id and the caller's key, and holds the only retry of the suite: one more try, for a call
that is safe to repeat, after a connection failed or the other side asked for patience (429, 503).
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from pydantic import SecretStr

from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.settings import Settings

_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 0.1  # before the second try, where the other side names no time
_MAX_PAUSE_SECONDS = 2.0


class ServiceClient:
    """A client of one base URL. Make one per process and peer; close it at the end.

    service: the peer's name, for messages. external: a model server that is not ours; it gets
    `key` and never the caller's own key.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        *,
        settings: Settings,
        external: bool = False,
        key: SecretStr | None = None,
    ) -> None:
        self._service = service
        self._base = base_url.rstrip("/")
        self._external = external
        self._key = key if external else (key or settings.service_key)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, Any], *, retry: bool = True) -> Any:
        """POST JSON and return the parsed JSON answer.

        retry: whether the call may be repeated; False for what must not happen twice.
        Raises ApiError: the peer's own for 4xx, 429 and 503; 502 for an answer that is not what it
        should be; 503 where nobody answers; 504 when the deadline passes.
        """
        return _parse(self._service, await self._call("POST", path, body, retry=retry))

    async def get(self, path: str) -> Any:
        """GET and return the parsed JSON answer. Raises like `post`."""
        return _parse(self._service, await self._call("GET", path, None, retry=True))

    async def get_bytes(self, path: str) -> bytes:
        """GET and return the body as it is. Raises like `post`."""
        return await self._call("GET", path, None, retry=True)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, retry: bool
    ) -> bytes:
        for last in (not retry, True):
            pause = _PAUSE_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            try:
                async with self._open(method, path, body) as response:
                    data = await response.read()
                    if response.status < 300:
                        return data
                    failure = _error(self._service, response, data)
                    if response.status not in (429, 503):
                        raise failure
                    pause = max(pause, _retry_after(response))
            # A connection that times out is both kinds of error, and the peer's fault.
            except aiohttp.ClientError as error:
                current().deadline.check()
                failure = self._unreachable(error)
            except TimeoutError:
                raise deadline_exceeded() from None
            if (
                last
                or pause > _MAX_PAUSE_SECONDS
                or pause * 1000 > current().deadline.remaining_ms()
            ):
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the loop returns or raises")

    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None
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
            timeout=aiohttp.ClientTimeout(
                total=None if remaining == float("inf") else remaining / 1000,
                sock_connect=_CONNECT_SECONDS,
            ),
        )

    def _unreachable(self, error: Exception) -> ApiError:
        hint = (
            "check its URL" if self._external else f"start it: `refdesk up --only {self._service}`"
        )
        return ApiError(
            503,
            "unreachable",
            f"{self._service} at {self._base} does not answer ({type(error).__name__}); {hint}",
        )


def _parse(service: str, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ApiError(
            502, "bad_upstream", f"{service} answered something that is not JSON"
        ) from None


def _error(service: str, response: aiohttp.ClientResponse, data: bytes) -> ApiError:
    """The peer's error as ours. Its 500 is our 502: the fault is not in this process; and so is a
    redirect, which none of our peers has reason to send.
    """
    status = response.status if response.status >= 400 and response.status != 500 else 502
    try:
        told = orjson.loads(data)["error"]
        message, code, param = str(told["message"]), str(told.get("code")), told.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        message, code, param = f"{service} answered status {response.status}", "bad_upstream", None
    headers = {}
    if "Retry-After" in response.headers:
        headers["Retry-After"] = response.headers["Retry-After"]
    return ApiError(status, code, message, param=param, headers=headers)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    try:
        return float(response.headers.get("Retry-After", "0"))
    except ValueError:  # a date: rare, and never from our own services
        return 0.0
