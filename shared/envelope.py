"""The envelope around every request, as plain ASGI: id, deadline, principal, limits, metrics."""

import asyncio
import ipaddress
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.auth import LOCAL, NOBODY, KeyFile, Principal
from shared.context import Deadline, RequestContext, deadline_exceeded, enter
from shared.errors import ApiError
from shared.settings import Settings
from shared.telemetry import HTTP_REQUESTS, HTTP_SECONDS, get_logger

log = get_logger(__name__)

# What a load balancer, a scraper or a client generator asks for; none of it shows a document.
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics", "/openapi.json"})
_LONGEST_S = 24 * 3600.0  # that a request may take, whatever its caller allows

# Makes the body of an error's answer, from the error and the request's own body as it was parsed
# from JSON (None where it was not, or not yet).
ErrorShape = Callable[[ApiError, object], dict[str, Any]]
# Where the body is in the request's scope; at paths whose errors have a shape alone, as it would
# otherwise be held for nothing.
PARSED_BODY = "refdesk.parsed_body"


class BodyError(HTTPException):
    """A body is not read on: `told` says why. While the framework reads a body it lets no exception
    through but its own.
    """

    def __init__(self, told: ApiError) -> None:
        super().__init__(told.status, told.message, told.headers)
        self.told = told


def json_response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; arrays of numbers (C-contiguous) may be anywhere in the body."""
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers, "application/json")


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Envelope:
    """ASGI middleware that every request passes through.

    It makes the RequestContext; refuses a body over the limit (413), one that stops coming (408) or
    a compressed one (415), a missing or wrong key (401), a service outside the key's scope (403)
    and, while no keys are set, a Host that is not this machine (a web page that rebinds its name to
    loopback); answers 504 once the deadline has passed; answers an ApiError, in the shape that
    `error_shapes` has for the path, else in the one of shared/errors.py; turns an unexpected
    exception into a bare 500; counts, times and logs. longest_s: by path, what a request may take
    whatever its caller allows; a day where none is named.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        settings: Settings,
        keys: KeyFile | None,
        error_shapes: Mapping[str, ErrorShape],
        uploads: Mapping[re.Pattern[str], int],
        longest_s: Mapping[str, float],
    ) -> None:
        self._app = app
        self._service = service
        self._settings = settings
        self._keys = keys
        self._error_shapes = error_shapes
        self._uploads = uploads
        self._longest_s = longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope; anything but HTTP is passed through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the same as GET, and the server leaves out the body
            scope = {**scope, "method": "GET"}
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        authorization = _text(headers.get(b"authorization"))
        status = 0  # 0: nothing was sent yet

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        shape = self._shape_for(scope["path"])
        if shape is not None:
            scope[PARSED_BODY] = None

        async def answer(error: ApiError) -> None:
            body = shape(error, scope[PARSED_BODY]) if shape else error.body()
            response = json_response(error.status, body, error.headers)
            await response(scope, receive, send_with_id)

        principal = NOBODY
        enter(RequestContext(request_id, Deadline(float("inf")), principal, authorization))
        try:
            deadline = self._deadline(scope["path"], headers.get(b"x-deadline-ms"))
            principal = self._authorise(scope["path"], headers, authorization)
            enter(RequestContext(request_id, deadline, principal, authorization))
            _require_plain_body(headers.get(b"content-encoding"))
            limited = self._limit_body(scope["path"], headers, receive)
            await self._within(deadline, self._app(scope, limited, send_with_id))
        except (ApiError, BodyError) as error:
            if status == 0:
                await answer(error.told if isinstance(error, BodyError) else error)
        except asyncio.CancelledError:  # by the server, which stops and waits no longer
            if status:
                raise
            message = "the service is stopping; send the request again"
            await answer(ApiError(503, "stopping", message, headers={"Retry-After": "1"}))
        except Exception as error:
            log.exception("unexpected_error", error=type(error).__name__)
            if status:  # too late for an answer of ours: the server closes the connection
                raise
            message = f"refdesk failed on this request; its log has the cause under id {request_id}"
            await answer(ApiError(500, "internal_error", message))
        finally:
            self._record(scope, status, principal, time.perf_counter() - started)

    def _shape_for(self, path: str) -> ErrorShape | None:
        """The shape of errors at a path; a key that ends in `*` stands for all that begin so."""
        for known, shape in self._error_shapes.items():
            if path == known or (known.endswith("*") and path.startswith(known[:-1])):
                return shape
        return None

    @staticmethod
    async def _within(deadline: Deadline, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(deadline.remaining_ms() / 1000) as limit:
                await work
        except TimeoutError:
            if not limit.expired():  # somebody else's timeout is not the caller's deadline
                raise
            raise deadline_exceeded() from None

    def _deadline(self, path: str, value: bytes | None) -> Deadline:
        most_ms = self._longest_s.get(path, _LONGEST_S) * 1000
        if value is None:
            return Deadline.after_ms(min(self._settings.deadline_ms, most_ms))
        try:
            milliseconds = float(value)
        except ValueError:
            milliseconds = float("nan")
        if not 0 <= milliseconds < float("inf"):
            raise ApiError(
                400, "bad_deadline", "x-deadline-ms must be a number of milliseconds, 0 or more"
            )
        return Deadline.after_ms(min(milliseconds, most_ms))

    def _authorise(
        self, path: str, headers: Mapping[bytes, bytes], authorization: str | None
    ) -> Principal:
        if self._keys is None:
            host = (_text(headers.get(b"host")) or "").strip()
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name and not is_loopback(name):
                raise ApiError(
                    403,
                    "forbidden_host",
                    "without API keys this service answers only to localhost and loopback",
                )
            return LOCAL
        if path in OPEN_PATHS:
            return NOBODY
        principal = self._keys.find(authorization)
        if principal is None:
            raise ApiError(
                401,
                "bad_key",
                "send a valid API key as `Authorization: Bearer KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not principal.may_use(self._service):
            raise ApiError(403, "forbidden_service", f"this key may not use {self._service}")
        return principal

    def _limit_body(self, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        own = (most for pattern, most in self._uploads.items() if pattern.fullmatch(path))
        limit = max(self._settings.max_body_bytes, next(own, 0))
        too_large = ApiError(
            413,
            "body_too_large",
            f"the body is over {limit} bytes; send less at a time, or raise the limit",
        )
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        pause_s = self._settings.body_pause_s
        too_slow = ApiError(
            408,
            "body_too_slow",
            f"nothing more of the body came for {pause_s:g} s",
            headers={"Connection": "close"},
        )
        seen = 0
        whole = False

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:  # what comes now is that the caller leaves
                return await receive()
            try:
                async with asyncio.timeout(pause_s):
                    part = await receive()
            except TimeoutError:
                raise BodyError(too_slow) from None
            whole = not part.get("more_body", False)
            seen += len(part.get("body", b""))
            if seen > limit:
                raise BodyError(too_large)
            return part

        return limited

    def _record(self, scope: Scope, status: int, principal: Principal, seconds: float) -> None:
        # The route's template, not the path: a path would make one series per document id.
        route = getattr(scope.get("route"), "path", "unmatched")
        HTTP_REQUESTS.labels(self._service, scope["method"], route, status).inc()
        HTTP_SECONDS.labels(self._service, route).observe(seconds)
        write = log.debug if scope["path"] in OPEN_PATHS else log.info
        write(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            principal=principal.name,
            ms=round(seconds * 1000, 1),
        )


def _require_plain_body(encoding: bytes | None) -> None:
    if encoding and encoding.strip().lower() != b"identity":
        raise ApiError(
            415,
            "unsupported_encoding",
            "the body is compressed; send it as it is, without Content-Encoding",
        )


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


def _request_id(value: bytes | None) -> str:
    """The caller's id where it is one (1 to 128 visible ASCII characters), else a new one."""
    text = (_text(value) or "").strip()
    if 0 < len(text) <= 128 and text.isascii() and text.isprintable():
        return text
    return uuid.uuid4().hex
