"""What makes a program one of the suite's services: the app factory and the process entry.

`create_service` gives an app /health, /ready, /metrics, the error shape and the request envelope
of shared/envelope.py; `run` binds the port, opens what the service needs and serves until SIGTERM.
"""

import asyncio
import errno
import gc
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from threadpoolctl import threadpool_limits

from shared import __version__
from shared.auth import KeyFile
from shared.envelope import PARSED_BODY, BodyError, Envelope, ErrorShape, is_loopback
from shared.errors import ERRORS, EXIT_CONFIG, ApiError, StartupError, refusal
from shared.http_protocol import HttpProtocol
from shared.limits import Load, Shedding, values_in
from shared.presence import WhileConnected
from shared.settings import ServiceName, Settings, load_settings
from shared.telemetry import configure_logging, get_logger

log = get_logger(__name__)

Probe = Callable[[], Awaitable[dict[str, Any]]]


class _StrictRequest(Request):
    """A request whose JSON is parsed strictly: NaN, lone surrogates and bad UTF-8 are errors.

    The body is gone once it is parsed: the framework keeps what it read until the answer ends.
    """

    def __init__(self, request: Request, most_values: int | None) -> None:
        super().__init__(request.scope, request.receive)
        self._most_values = most_values
        self._text: bytearray | None = None

    async def body(self) -> bytearray:  # type: ignore[override]  # so that it can be emptied
        if self._text is None:
            self._text = bytearray()
            async with aclosing(self.stream()) as stream:
                async for part in stream:
                    self._text += part
        return self._text

    async def json(self) -> Any:
        text = await self.body()
        self._require_few_values(text)
        parsed = orjson.loads(text)
        text.clear()
        if PARSED_BODY in self.scope:
            self.scope[PARSED_BODY] = parsed
        return parsed

    def _require_few_values(self, text: bytearray) -> None:
        """Raise BodyError for a body that takes long to parse: each value is made one by one."""
        if self._most_values is None or values_in(text) <= self._most_values:
            return
        words = f"the body has over {self._most_values} commas, brackets and braces; send less"
        raise BodyError(ApiError(400, "too_many_values", words))


def _strict_route(most_values: int | None) -> type[APIRoute]:
    """The class of routes whose bodies may hold so many values."""

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def strict(request: Request) -> Response:
                return await handler(_StrictRequest(request, most_values))

            return strict

    return StrictRoute


def create_service(
    name: ServiceName,
    settings: Settings,
    *,
    probe: Probe,
    start: Callable[[], Awaitable[None]] | None = None,
    close: Callable[[], Awaitable[None]] | None = None,
    while_connected: bool = False,
    load: Load | None = None,
    most_values: int | None = None,
    error_shapes: Mapping[str, ErrorShape] | None = None,
    uploads: Mapping[re.Pattern[str], int] | None = None,
) -> FastAPI:
    """An app with everything that all services share.

    probe: proves that the service can do its work (an inference, a query) and returns details for
    /ready; it raises ApiError where it can't. start: called once, before the first request. close:
    called once, after the last one.
    while_connected: whether work ends when its caller has left; see shared/presence.py.
    load: what the service takes at once; None for all that comes.
    most_values: that a JSON body may hold, so that none takes long to parse; None for any number,
    where vectors come as lists.
    error_shapes: by path, or by how paths begin (`/knowledgebases/*`), for those whose clients
    expect another shape of errors than ours. uploads: paths whose bodies may be larger than
    others, and how large, bytes; their routes read the body as it comes, never whole.
    Raises StartupError if the keys file is wrong.
    """
    keys = KeyFile.read(settings.keys_file) if settings.keys_file else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if start is not None:
            await start()
        yield
        if close is not None:
            await close()
        log.info("stopped")  # nothing after this is sure to run: uvicorn raises the signal again

    # The interactive pages load scripts from elsewhere; /openapi.json is served all the same.
    app = FastAPI(
        title=f"refdesk {name}",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
        # A redirect would name this host as it sees itself, which is not how callers reach it.
        redirect_slashes=False,
    )
    app.router.route_class = _strict_route(most_values)
    if while_connected:
        app.add_middleware(WhileConnected)
    if load is not None:
        own = settings.service_key.get_secret_value() if settings.service_key else None
        callers = keys.callers(name, but=own) if keys else ()
        app.add_middleware(Shedding, load=load, keys=len(callers))
    app.add_middleware(  # the last one added is the outermost
        Envelope,
        service=name,
        settings=settings,
        keys=keys,
        error_shapes=error_shapes or {},
        uploads=uploads or {},
        longest_s=dict.fromkeys(load.paths, load.longest_s) if load is not None else {},
    )
    app.add_exception_handler(RequestValidationError, _raise_for_validation_error)
    app.add_exception_handler(HTTPException, _raise_for_http_error)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive. Says nothing about whether it can do its work: see /ready."""
        return {"status": "alive", "service": name, "version": __version__}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """The service has just done a piece of its work. 503 with the reason where it can't."""
        try:
            details = await probe()
        except ApiError as error:
            message = error.message
            if keys is not None:  # no key was asked for: the reason names files and addresses
                log.warning("not_ready", reason=message)
                message = f"{name} can't do its work just now: see its log"
            raise ApiError(503, error.code, message, param=error.param) from error
        return {"status": "ready", "service": name, "version": __version__, **details}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Prometheus metrics of this process."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


# What the framework finds is raised as ours, and the envelope around it answers all of them.


async def _raise_for_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
    if isinstance(error, BodyError):
        raise error.told from None
    codes = {404: "unknown_path", 405: "wrong_method"}
    messages = {
        404: "there is nothing at this path; /openapi.json lists what there is",
        405: "this path does not take that method; /openapi.json lists what it takes",
    }
    raise ApiError(
        error.status_code,
        codes.get(error.status_code, "bad_request"),
        messages.get(error.status_code, str(error.detail)),
        headers=error.headers,
    ) from None


async def _raise_for_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    fault = error.errors()[0]
    place = fault["loc"][1:]  # the first says body, query or path
    if fault["type"] == "json_invalid":
        # The context holds the parser's words; never the body, which may be anything.
        reason = str(fault.get("ctx", {}).get("error", "can't be parsed"))
        message = f"the body is not JSON in UTF-8: {reason}"
        raise ApiError(400, "invalid_json", message) from None
    message = fault["msg"]
    if not place and fault["type"] != "value_error":  # of a validator that sees all fields
        message = "send a JSON object as the body, with `Content-Type: application/json`"
    # OpenAI's clients expect 400 for what is wrong with a body; our own API says 422.
    status = 400 if request.url.path.startswith("/v1/") else 422
    raise refusal(place, message, status) from None


def _bind(host: str, port: int, service: str) -> socket.socket:
    """A bound, not yet listening socket: who connects before we are ready is refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        remedy = (
            f"stop what uses it, or set REFDESK_{service.upper()}_PORT "
            "(`refdesk up --port-base N` moves all four)"
            if error.errno in (errno.EADDRINUSE, errno.EACCES)
            else "set REFDESK_HOST to an address of this machine"
        )
        raise StartupError(
            f"{service} can't listen on {host}:{port}: {error.strerror}; {remedy}"
        ) from None
    return bound


def run(name: ServiceName, build: Callable[[Settings], Awaitable[FastAPI]]) -> None:
    """Run a service until SIGTERM or SIGINT, then let requests in flight end and exit.

    After SIGTERM the process ends by that signal (a shell's 143). A StartupError becomes one line
    on stderr and exit code 78.
    """
    try:
        settings = load_settings()
        if not is_loopback(settings.host) and settings.keys_file is None:
            raise StartupError(
                f"{name} will not listen on {settings.host} without API keys, where anyone on the "
                "network could use it: make a keys file (`refdesk keys new NAME`) and set "
                "REFDESK_KEYS_FILE, or listen on 127.0.0.1"
            )
        configure_logging(name, settings)
        # The matrices here are small: a second BLAS thread gains nothing on them and spins on a
        # core that another service needs.
        threadpool_limits(1, "blas")
        bound = _bind(settings.host, settings.port(name), name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(name, build, settings, bound))
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    except KeyboardInterrupt:
        pass  # uvicorn has already shut down; it raises the signal again on its way out


async def _serve(
    name: ServiceName,
    build: Callable[[Settings], Awaitable[FastAPI]],
    settings: Settings,
    bound: socket.socket,
) -> None:
    app = await build(settings)
    # What is there by now stays. To look through it for garbage again and again would stop all
    # requests for a tenth of a second each time.
    gc.collect()
    gc.freeze()
    # Nor often through what requests at work hold, which it does for a tenth of a second where they
    # are hundreds: from 10,000 new objects on for the young ones, and seldom for all.
    gc.set_threshold(10_000, 20, 100)
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Longer than our client keeps a connection, so that it never reuses one just closed here.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.drain_s,
        lifespan="on",
        ws="none",  # there are no such routes, and the envelope would not guard them
    )
    log.info("listening", host=settings.host, port=settings.port(name), version=__version__)
    await uvicorn.Server(config).serve(sockets=[bound])
