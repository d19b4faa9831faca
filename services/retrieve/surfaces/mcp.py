"""The desk as a server of the Model Context Protocol (MCP), over streamable HTTP at /mcp."""

import asyncio
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.retrieve.desk import Desk
from shared.envelope import ErrorShape
from shared.errors import ApiError
from shared.presence import WhileConnected

_PATH = "/mcp"
# JSON-RPC 2.0's numbers.
_PARSE_ERROR, _INVALID_REQUEST, _INVALID_PARAMS, _INTERNAL_ERROR = -32700, -32600, -32602, -32603


def mcp_error_body(error: ApiError, body: object = None) -> dict[str, Any]:
    """An error as the JSON-RPC answer to the request that it is about; `data` has our code."""
    id_ = body.get("id") if isinstance(body, dict) else None
    known = isinstance(id_, str | int) and not isinstance(id_, bool)  # Python's bool is an int
    code = _INTERNAL_ERROR if error.status >= 500 else _INVALID_REQUEST
    if error.code == "invalid_json":
        code = _PARSE_ERROR
    elif error.param is not None:
        code = _INVALID_PARAMS
    return {
        "jsonrpc": "2.0",
        "id": id_ if known else None,
        "error": {"code": code, "message": error.message, "data": {"code": error.code}},
    }


ERROR_SHAPES: dict[str, ErrorShape] = {_PATH: mcp_error_body, f"{_PATH}/*": mcp_error_body}


def add_mcp_routes(app: FastAPI, desk: Desk) -> None:
    """Add the endpoint of MCP to the app of retrieve."""
    app.router.routes.append(_Counted(_PATH, _Endpoint(desk), methods=["POST"]))


class _Counted(Route):
    """A route that the envelope's metrics and log know by its path."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await super().handle(scope, receive, send)


class _Endpoint:
    """ASGI app: the server, which is imported when it is first called."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server: ASGIApp | None = None
        self._importing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._importing:
            if self._server is None:
                name = "services.retrieve.surfaces.mcp_server"
                server = await asyncio.to_thread(import_module, name)
                self._server = WhileConnected(server.Endpoint(self._desk))
        await self._server(scope, receive, send)
