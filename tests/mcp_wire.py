"""Messages of MCP as they go over the wire, for tests that use no client."""

from typing import Any

HEADERS = {"accept": "application/json, text/event-stream"}


def call(name: str, arguments: Any, id_: int = 7) -> dict[str, Any]:
    """A call of a tool as it goes over the wire."""
    parameters = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": parameters}
