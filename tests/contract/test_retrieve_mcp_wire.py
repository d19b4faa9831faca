"""The desk's MCP endpoint below the official client: headers, bodies that are no message."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing
from mcp_types import Tool

from tests.library import LIBRARY, fill_library
from tests.mcp_wire import HEADERS, call
from tests.shelf import desk
from tests.suite import Suite


@pytest.fixture(scope="module")
def url(suite: Suite) -> str:
    url = suite.url("retrieve")
    fill_library(url)
    return url


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:6274"}, 200),
        ({"origin": "http://127.0.0.1"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)
def test_web_pages_of_other_sites_are_refused(
    url: str, headers: dict[str, str], status: int
) -> None:
    sent = call("fetch", {"id": f"{LIBRARY}/bread"})
    got = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS | headers, timeout=60)
    assert got.status_code == status
    assert got.json()["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 5000, -32700),
        (b"NaN", -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"method": "tools/list"}', -32600),
        (b'{"jsonrpc": "2.0", "id": [], "method": "tools/list"}', -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "tools/list"}', -32600),
    ],
)
def test_what_is_no_message_is_answered_in_the_protocols_shape(
    url: str, content: bytes, code: int
) -> None:
    headers = HEADERS | {"content-type": "application/json"}
    got = httpx.post(f"{url}/mcp", content=content, headers=headers, timeout=60)
    assert got.status_code == 400
    assert got.json()["error"]["code"] == code
    assert "pydantic" not in got.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"accept": "text/html"}, 406),
        ({"accept": ""}, 406),
        ({"accept": "application/json"}, 200),
    ],
)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
def test_what_is_no_json_is_refused_in_the_protocols_shape(
    url: str, headers: dict[str, str], status: int, version: str
) -> None:
    sent = json.dumps(call("fetch", {"id": f"{LIBRARY}/bread"})).encode()
    plain = {**HEADERS, "content-type": "application/json", "mcp-protocol-version": version}
    got = httpx.post(f"{url}/mcp", content=sent, headers=plain | headers, timeout=60)
    if status == 200:
        assert got.status_code not in (406, 415)
    else:
        assert got.status_code == status
        assert got.json()["error"]["data"] == {"code": "invalid_request"}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "params.name: "),
        ({"name": 7}, "params.name: "),
        ({"name": "fetch", "arguments": []}, "params.arguments: "),
    ],
)
def test_a_call_that_is_none_is_refused_by_its_place(
    url: str, parameters: dict[str, Any], says: str
) -> None:
    sent = call("fetch", {}) | {"params": parameters}
    error = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS, timeout=60).json()["error"]
    assert (error["code"], error["data"]) == (-32602, {"code": "invalid_request"})
    assert error["message"].startswith(says)


def test_a_boolean_is_no_id(url: str) -> None:
    sent = call("fetch", {}) | {"id": True}
    got = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS, timeout=60)
    assert got.status_code == 400
    assert got.json()["id"] is None


def test_a_slash_too_many_is_answered_in_the_protocols_shape(url: str) -> None:
    got = httpx.post(f"{url}/mcp/", json=call("fetch", {}), headers=HEADERS, timeout=60)
    assert got.status_code == 404
    assert got.json()["error"]["data"] == {"code": "unknown_path"}


@pytest.mark.parametrize(("depth", "status"), [(100, 200), (220, 400), (400, 400)])
def test_arguments_that_are_nested_deep_are_refused(url: str, depth: int, status: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    condition = {"key": "a", "type": "in", "value": deep}
    for arguments in ({"query": deep}, {"query": "x", "filters": [condition]}):
        sent = call("retrieve", arguments)
        got = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS, timeout=60)
        assert got.status_code == status
        if status == 200:
            assert got.json()["result"]["isError"] is True
        else:
            assert got.json()["error"]["data"] == {"code": "invalid_json"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_there_are_no_sessions_to_listen_to_or_to_end(url: str, method: str) -> None:
    got = httpx.request(method, f"{url}/mcp", headers=HEADERS, timeout=60)
    assert got.status_code == 405
    assert got.headers["allow"] == "POST"


async def test_a_defect_in_listing_the_tools_is_none_of_the_callers(
    shelf: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        Tool.model_validate({})
        return ""

    monkeypatch.setattr("services.retrieve.surfaces.mcp_server.described", fail)
    sent = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}
    with structlog.testing.capture_logs() as logs:
        async with desk(shelf, embed=suite.url("embed")) as http:
            got = (await http.post("/mcp", json=sent, headers=HEADERS)).json()
    assert got["id"] == 7
    assert (got["error"]["code"], got["error"]["data"]) == (-32603, {"code": "internal_error"})
    assert "its log has the cause under id" in got["error"]["message"]
    [line] = [line for line in logs if line["event"] == "unexpected_error"]
    assert (line["method"], line["error"]) == ("tools/list", "ValidationError")
