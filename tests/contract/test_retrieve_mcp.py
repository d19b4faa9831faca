"""The desk over MCP, by the official client."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import Request, Response
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from shared.auth import hash_key
from tests.library import DESCRIPTION, DOCUMENTS, IDS, LIBRARY, QUERY, fill_library
from tests.mcp_wire import HEADERS, call
from tests.shelf import TEXTS, desk, fixed, peer
from tests.suite import Suite, serving

MODES = ("legacy", "auto")  # the handshake of 2025, and the protocol of 2026 without one


@pytest.fixture(scope="module")
def url(suite: Suite) -> str:
    url = suite.url("retrieve")
    for corpus in httpx.get(f"{url}/corpora").json()["corpora"]:  # other files' own
        httpx.delete(f"{url}/corpora/{corpus['name']}").raise_for_status()
    fill_library(url)
    return url


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The client's log tells of every request."""
    logging.getLogger("mcp").setLevel("WARNING")
    yield
    logging.getLogger("mcp").setLevel("NOTSET")


def client(url: str, mode: str = "legacy", key: str = "") -> AbstractAsyncContextManager[Client]:
    """The official client, connected to a desk."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    http = httpx2.AsyncClient(headers=headers, timeout=30)
    return Client(streamable_http_client(f"{url.rstrip('/')}/mcp", http_client=http), mode=mode)


def answer(result: CallToolResult) -> dict[str, Any]:
    """The JSON of a tool's answer, which is its one item."""
    assert not result.is_error, result.content
    [item] = result.content
    assert isinstance(item, TextContent)
    body: dict[str, Any] = json.loads(item.text)
    assert result.structured_content == body
    return body


def failure(result: CallToolResult) -> str:
    """The words of a tool's failure."""
    assert result.is_error
    [item] = result.content
    assert isinstance(item, TextContent)
    return item.text


@pytest.mark.parametrize("mode", MODES)
async def test_the_tools_are_read_only_and_name_the_corpora(url: str, mode: str) -> None:
    async with client(url, mode) as desk_:
        tools = {tool.name: tool for tool in (await desk_.list_tools()).tools}
    assert set(tools) == {"search", "fetch", "retrieve"}
    described = " ".join(DESCRIPTION.split())
    for tool in tools.values():
        assert f"- {LIBRARY}: {described}" in (tool.description or "")
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.open_world_hint is False
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert "$ref" not in json.dumps(tool.input_schema)
    assert tools["search"].input_schema["required"] == ["query"]
    assert tools["fetch"].input_schema["required"] == ["id"]
    properties = tools["retrieve"].input_schema["properties"]
    assert LIBRARY in properties["corpora"]["items"]["enum"]
    assert properties["filters"]["items"]["properties"]["type"]["enum"][0] == "eq"


@pytest.mark.parametrize("mode", MODES)
async def test_search_and_fetch_have_the_shapes_of_chatgpts_connectors(
    shelf: Path, suite: Suite, mode: str
) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        url = str(http.base_url)
        fill = {"documents": [*DOCUMENTS, {"id": "a/b#c?%2F", "text": "Odd ids are ids."}]}
        await http.put(f"/corpora/{LIBRARY}")
        (await http.post(f"/corpora/{LIBRARY}/documents", json=fill)).raise_for_status()
        async with client(url, mode) as desk_:
            found = answer(await desk_.call_tool("search", {"query": QUERY}))
            assert set(found) == {"results"}
            for result in found["results"]:
                assert set(result) == {"id", "title", "url"}
                assert all(isinstance(value, str) for value in result.values())
            ids = [result["id"] for result in found["results"]]
            assert len(ids) == len(set(ids))
            # Of texts that several corpora have, one is found.
            assert {id_.partition("/")[0] for id_ in ids} > {LIBRARY}
            for document in fill["documents"]:
                id_ = f"{LIBRARY}/{document['id']}"
                body = answer(await desk_.call_tool("fetch", {"id": id_}))
                assert body == {
                    "id": id_,
                    "title": document.get("title", document["id"]),
                    "text": document["text"],
                    "url": document.get("url", ""),
                    "metadata": document.get("metadata", {}),
                }


async def test_retrieve_narrows_down_by_corpus_and_by_metadata(url: str) -> None:
    async with client(url) as desk_:

        async def found(**more: Any) -> list[str]:
            arguments = {"query": QUERY, "corpora": [LIBRARY], **more}
            body = answer(await desk_.call_tool("retrieve", arguments))
            return [passage["id"].partition("/")[2] for passage in body["passages"]]

        body = answer(await desk_.call_tool("retrieve", {"query": QUERY, "corpora": [LIBRARY]}))
        best = body["passages"][0]
        assert 0 <= best.pop("score") <= 1
        assert best == {
            "id": f"{LIBRARY}/sky/moon.md",
            "corpus": LIBRARY,
            **{key: DOCUMENTS[0][key] for key in ("title", "url", "text", "metadata")},
        }
        late = {"key": "year", "type": "gte", "value": 2023}
        sky = {"key": "topic", "type": "in", "value": ["sky"]}
        assert set(await found(filters=[late])) == {"sky/tides.md", "bread"}
        assert await found(filters=[late, sky]) == ["sky/tides.md"]
        assert set(await found(filters=[])) == set(IDS)
        assert len(await found(top_k=2)) == 2
        assert len(await found(max_tokens=16)) < len(IDS)
        assert await found(min_score=1.0) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search", {}, "query: Field required"),
        ("search", {"query": " "}, "query: is blank"),
        ("search", {"query": "x" * 8193}, "query"),
        ("search", {"query": "x", "top_k": 3}, "top_k"),
        ("fetch", {"id": 7}, "id: "),
        ("fetch", {"id": "nothing"}, "id: is none that search or retrieve gave"),
        ("fetch", {"id": "/moon"}, "id: is none that search or retrieve gave"),
        ("fetch", {"id": "nowhere/moon"}, "there is no corpus 'nowhere'"),
        ("fetch", {"id": f"{LIBRARY}/nothing"}, "there is no document 'nothing'"),
        ("retrieve", {"query": "x", "corpora": ["nowhere"]}, "there is no corpus 'nowhere'"),
        ("retrieve", {"query": "x", "top_k": 51}, "top_k"),
        ("retrieve", {"query": ""}, "query: is blank"),
        ("retrieve", {"query": None}, "query: Field required"),
        ("retrieve", {"query": "x", "max_tokens": 0}, "max_tokens: "),
        ("retrieve", {"query": "x", "corpora": [f"c{n}" for n in range(17)]}, "corpora: names 17"),
        (
            "retrieve",
            {"query": "x", "filters": [{"key": "a", "type": "eq", "value": {"b": 1}}]},
            "filters.0.value: must be a text, a number",
        ),
        ("retrieve", {"query": "x", "filters": ["a"]}, "filters.0: must be a JSON object"),
        ("fetch", {"id": "a/" + "x" * 100_000}, "id: is none that search or retrieve gave"),
        ("fetch", {"id": "a/b", "x" * 100_000: 1}, "x"),
        ("retrieve", {"query": "x", "filters": {"key": "a"}}, "filters"),
        (
            "retrieve",
            {"query": "x", "filters": [{"key": "a", "type": "like", "value": "b"}]},
            "filters.0.type",
        ),
        (
            "retrieve",
            {"query": "x", "filters": [{"key": "a", "type": "gt", "value": "b"}]},
            "filters.0.value",
        ),
    ],
)
async def test_bad_arguments_are_an_answer_that_says_what_is_wrong(
    url: str, mode: str, name: str, arguments: dict[str, Any], says: str
) -> None:
    async with client(url, mode) as desk_:
        words = failure(await desk_.call_tool(name, arguments))
    assert words.startswith(says)
    assert "Traceback" not in words
    assert len(words) < 1000


@pytest.mark.parametrize(
    ("method", "parameters", "says"),
    [
        ("tools/list", {"cursor": 7}, "params.cursor: "),
        ("tools/call", {"name": "fetch", "arguments": "x"}, "params.arguments: "),
        ("initialize", {"protocolVersion": 7, "capabilities": {}}, "params."),
        ("initialize", None, "params: "),
        ("ping", {"_meta": 7}, "params._meta: "),
        ("resources/read", {}, "params.uri: "),
    ],
)
def test_parameters_that_can_not_be_read_are_refused_by_their_place(
    url: str, method: str, parameters: Any, says: str
) -> None:
    sent = {"jsonrpc": "2.0", "id": 7, "method": method, "params": parameters}
    if parameters is None:
        del sent["params"]
    got = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS, timeout=60).json()
    assert got["id"] == 7
    assert (got["error"]["code"], got["error"]["data"]) == (-32602, {"code": "invalid_request"})
    assert got["error"]["message"].startswith(says)


def test_an_arguments_name_is_cut_where_an_answer_repeats_it(url: str) -> None:
    sent = call("search", {"query": "x", "y" * 1_000_000: 1})
    got = httpx.post(f"{url}/mcp", json=sent, headers=HEADERS, timeout=60).json()["result"]
    assert got["isError"] is True
    assert got["content"][0]["text"] == "y" * 63 + "…: Extra inputs are not permitted"


async def test_null_is_the_same_as_absent(url: str) -> None:
    optional = ("corpora", "top_k", "filters", "min_score", "max_tokens")
    async with client(url) as desk_:
        asked = {"query": QUERY, "corpora": [LIBRARY]}
        plain = answer(await desk_.call_tool("retrieve", asked))
        nulls = {**dict.fromkeys(optional), **asked}
        assert answer(await desk_.call_tool("retrieve", nulls)) == plain
        everywhere = await desk_.call_tool("retrieve", {**nulls, "corpora": None})
        assert answer(everywhere)["passages"]
        tools = {tool.name: tool for tool in (await desk_.list_tools()).tools}
    budget = tools["retrieve"].input_schema["properties"]["max_tokens"]
    assert (budget["type"], budget["minimum"], budget["maximum"]) == ("integer", 1, 1_000_000)
    assert not budget.keys() & {"ge", "le", "default"}


async def test_an_answer_says_what_the_search_went_without(shelf: Path, suite: Suite) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        for name in ("retrieve", "search"):
            got = await http.post("/mcp", json=call(name, {"query": QUERY}), headers=HEADERS)
            assert got.headers["x-refdesk-degraded"] == "curate"
            result = got.json()["result"]
            assert result["_meta"]["degraded"] == ["curate"]
            body = result["structuredContent"]
            if name == "retrieve":
                assert body["degraded"] == ["curate"]
            else:  # has the shape that connectors ask for, and nothing else
                assert set(body) == {"results"}
        got = await http.post("/mcp", json=call("fetch", {"id": "shelf/moon"}), headers=HEADERS)
        assert "x-refdesk-degraded" not in got.headers
        assert "degraded" not in got.json()["result"].get("_meta", {})


async def test_more_corpora_than_a_search_takes_are_refused_with_the_way_out(
    suite: Suite, tmp_path: Path
) -> None:
    async with desk(tmp_path, embed=suite.url("embed")) as http:
        for number in range(17):
            (await http.put(f"/corpora/c{number}")).raise_for_status()
        async with client(str(http.base_url)) as desk_:
            searched = failure(await desk_.call_tool("search", {"query": "Moon"}))
            retrieved = failure(await desk_.call_tool("retrieve", {"query": "Moon"}))
    there = "corpora: there are 17, and one search takes 16: "
    assert searched == f"{there}use the tool retrieve and name those to search"
    assert retrieved == f"{there}name those to search"


@pytest.mark.parametrize("mode", MODES)
async def test_an_unknown_tool_is_an_error_of_the_protocol(url: str, mode: str) -> None:
    async with client(url, mode) as desk_:
        with pytest.raises(MCPError, match="there is no tool 'drop'; there are: search, fetch"):
            await desk_.call_tool("drop", {})


@pytest.mark.parametrize("mode", MODES)
def test_a_key_sees_neither_names_nor_documents_of_what_it_may_not_read(
    shelf: Path, suite: Suite, tmp_path: Path, mode: str
) -> None:
    keys = tmp_path / "keys.json"
    entries = [
        {"name": "one", "sha256": hash_key("k-one"), "corpora": ["shelf"]},
        {"name": "two", "sha256": hash_key("k-two"), "corpora": ["secret"]},
        {"name": "none", "sha256": hash_key("k-none"), "corpora": []},
        {"name": "writer", "sha256": hash_key("k-writer"), "services": ["generate"]},
    ]
    keys.write_text(json.dumps({"keys": entries}))

    async def sees(url: str, key: str, own: str, other: str) -> None:
        async with client(url, mode, key) as desk_:
            listed = (await desk_.list_tools()).model_dump_json()
            assert own in listed
            assert other not in listed
            found = answer(await desk_.call_tool("search", {"query": "Moon"}))["results"]
            assert {result["id"] for result in found} == {f"{own}/{id_}" for id_ in TEXTS}
            everything = answer(await desk_.call_tool("retrieve", {"query": "Moon"}))
            assert {passage["corpus"] for passage in everything["passages"]} == {own}
            for name, arguments in (
                ("fetch", {"id": "NAME/moon"}),
                ("retrieve", {"query": "Moon", "corpora": ["NAME"]}),
            ):
                told = set()
                for corpus in (other, "not-there"):
                    sent = json.loads(json.dumps(arguments).replace("NAME", corpus))
                    words = failure(await desk_.call_tool(name, sent))
                    told.add(words.replace(corpus, "…"))
                assert len(told) == 1

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as http:
            url = str(http.base_url)
            # At once, so that a mix-up of their contexts would show.
            pairs = [("k-one", "shelf", "secret"), ("k-two", "secret", "shelf")] * 2
            await asyncio.gather(*(sees(url, *pair) for pair in pairs))
            async with client(url, mode, "k-none") as desk_:
                listed = (await desk_.list_tools()).model_dump_json()
                assert "shelf" not in listed
                assert "There is no corpus yet." in listed
                words = failure(await desk_.call_tool("search", {"query": "Moon"}))
                assert words == "there is no corpus to search"
            for key, status, code in (
                ("wrong", 401, "bad_key"),
                ("k-writer", 403, "forbidden_service"),
            ):
                headers = HEADERS | {"authorization": f"Bearer {key}"}
                refused = await http.post("/mcp", json=call("search", {}), headers=headers)
                assert refused.status_code == status
                assert refused.json()["error"]["data"] == {"code": code}

    asyncio.run(main())


@pytest.fixture
def info(suite: Suite) -> Any:
    """What embed says of itself."""
    return httpx.get(f"{suite.url('embed')}/info", timeout=60).json()


async def test_a_search_ends_at_its_deadline_and_when_its_caller_leaves(
    shelf: Path, info: dict[str, Any]
) -> None:
    """Embed hangs: what has come to an end is no longer waited for there."""
    arrived, left = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def hang(request: Request) -> Response:
        await request.body()
        arrived.release()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.release()
        return Response()

    async with serving(peer(info, hang)) as embed, desk(shelf, embed=embed) as http:
        sent = call("retrieve", {"query": "Moon", "corpora": ["shelf"]}, id_=11)
        late = await http.post("/mcp", json=sent, headers=HEADERS | {"x-deadline-ms": "700"})
        assert late.json()["id"] == 11
        if late.status_code == 200:  # answered without the vectors, within the deadline
            assert not late.json()["result"]["isError"]
        else:
            assert late.json()["error"]["data"] == {"code": "deadline_exceeded"}
        async with asyncio.timeout(20):
            await arrived.acquire()
            await left.acquire()
        waiting = asyncio.create_task(http.post("/mcp", json=sent, headers=HEADERS))
        async with asyncio.timeout(20):
            await arrived.acquire()
            waiting.cancel()
            await left.acquire()


async def test_a_fault_of_another_service_is_an_answer_without_a_traceback(
    shelf: Path, info: dict[str, Any]
) -> None:
    async with (
        serving(peer(info, fixed(b"rubbish", 500))) as embed,
        desk(shelf, embed=embed) as http,
        client(str(http.base_url)) as desk_,
    ):
        result = await desk_.call_tool("retrieve", {"query": "Moon", "corpora": ["shelf"]})
        text = result.model_dump_json()
        assert "Traceback" not in text
        assert "moon" in text or result.is_error


async def test_nothing_of_a_request_stays_behind(shelf: Path, suite: Suite) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        sent = call("fetch", {"id": "shelf/moon"})
        for _ in range(3):
            (await http.post("/mcp", json=sent, headers=HEADERS)).raise_for_status()
        before = len(asyncio.all_tasks())
        for _ in range(30):
            (await http.post("/mcp", json=sent, headers=HEADERS)).raise_for_status()
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) <= before
