"""Keys, one service that asks for one, and a machine without a network for client packages."""

import ipaddress
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.auth import hash_key
from shared.settings import ServiceName
from tests.suite import prepare_suite

KEY = "client-key"

# What keeps the packages from reporting their use; some read it when they are imported.
SILENT = {
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
}


def keys_file(folder: Path, *entries: dict[str, Any]) -> Path:
    """A keys file of these entries. The key of each is its name with `-key` behind it."""
    hashed = [{**one, "sha256": hash_key(f"{one['name']}-key")} for one in entries]
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": hashed}))
    return path


def bearer(name: str) -> dict[str, str]:
    """The header with the key of that name."""
    return {"authorization": f"Bearer {name}-key"}


@contextmanager
def service_with_a_key(name: ServiceName, folder: Path) -> Iterator[str]:
    """The base URL of that service, alone, which answers to KEY only."""
    keys = keys_file(folder, {"name": "client"})
    service = prepare_suite(folder, REFDESK_KEYS_FILE=str(keys)).services[name]
    try:
        service.start()
        yield service.url
    finally:
        service.stop()


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """As without a network: nothing here can look up or call another machine."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def look_up_here(host: Any, *rest: Any, **more: Any) -> Any:
        if not _is_here(host):
            raise socket.gaierror(f"{host} is not this machine")
        return look_up(host, *rest, **more)

    def connect_here(sock: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not _is_here(address[0]):
            raise ConnectionRefusedError(f"{address[0]} is not this machine")
        connect(sock, address)

    with pytest.MonkeyPatch.context() as patch:
        for variable, value in SILENT.items():
            patch.setenv(variable, value)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        patch.setattr(socket.socket, "connect", connect_here)
        yield


def _is_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
