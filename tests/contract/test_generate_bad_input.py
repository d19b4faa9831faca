"""Rubbish to both routes that answer questions: each gets an error that names what is wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.desk import Desk
from tests.model_server import ModelServer
from tests.policed import policed
from tests.writers import PORT, Serve

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
JSON = {"content-type": "application/json"}
USER = {"role": "user", "content": PORT}
GOOD: dict[str, dict[str, Any]] = {CHAT: {"messages": [USER]}, RESPONSES: {"input": PORT}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
GIVEN = {"type": "function_call_output", "call_id": "a", "output": "1"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
LOOKED_AT = {"type": "image_url", "image_url": {"url": "data:", "detail": "hard"}}
INPUT_IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
NO_SCHEMA = {"type": "no such type"}


def turns(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": PORT} for role in roles]


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


@dataclass(frozen=True)
class Bad:
    """Fields that spoil a good body, the field that the error names, and words of its message."""

    fields: dict[str, Any]
    param: str
    words: str = ""


CHATS = [
    Bad({"messages": []}, "messages"),
    Bad({"messages": None}, "messages"),
    Bad({"messages": turns("system", "assistant")}, "messages", "no message has the role 'user'"),
    Bad({"messages": turns("user", "wizard")}, "messages.1.role", "'assistant'"),
    Bad({"messages": [USER] * 513}, "messages", "512"),
    Bad(
        {"messages": [USER, {"role": "tool", "tool_call_id": "a", "content": "1"}]},
        "messages.1.tool_call_id",
        "no call 'a' waits",
    ),
    Bad(
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]},
        "messages.2",
        "'a' has no result",
    ),
    Bad({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content", "into words"),
    Bad(
        {"messages": [{"role": "user", "content": [IMAGE]}, USER]},
        "messages.0.content.0.image_url.url",
        "first bytes",
    ),
    Bad(
        {"messages": [{"role": "system", "content": [IMAGE]}, USER]},
        "messages.0.content.0.type",
        "of the user alone",
    ),
    Bad(
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages.0.content.0.type",
        "'input_audio'",
    ),
    Bad(
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages.0.content.0.image_url",
    ),
    Bad(
        {"messages": [{"role": "user", "content": [LOOKED_AT]}]},
        "messages.0.content.0.image_url.detail",
        "'high'",
    ),
    Bad(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 4097}]},
        "messages",
        "4,096 parts",
    ),
    Bad({"messages": [{"role": "user", "content": "\u00a0 \n\t"}]}, "messages.0.content", "blank"),
    Bad({"tools": [tool(parameters=NO_SCHEMA)]}, "tools.0.function.parameters"),
    Bad({"tools": [tool(parameters=[])]}, "tools.0.function.parameters"),
    Bad({"tools": [{"type": "function"}]}, "tools.0.function"),
    Bad({"tools": [tool(), tool()]}, "tools", "same name"),
    Bad({"tools": [tool()] * 129}, "tools", "128"),
    Bad({"tools": "f"}, "tools"),
    Bad({"tool_choice": "sometimes"}, "tool_choice", "'required'"),
    Bad({"tool_choice": "required"}, "tool_choice", "no tools"),
    Bad({"functions": [{"name": "f"}]}, "functions", "send tools"),
    Bad({"response_format": {"type": "xml"}}, "response_format.type", "'json_schema'"),
    Bad({"max_tokens": 0}, "max_tokens"),
    Bad({"max_tokens": -1}, "max_tokens"),
    Bad({"max_tokens": 10**7}, "max_tokens", "1000000"),
    Bad({"max_completion_tokens": 10**30}, "max_completion_tokens"),
    Bad({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    Bad({"n": 2}, "n", "only one answer"),
    Bad({"n": 0}, "n", "only one answer"),
    Bad({"model": "x" * 201}, "model", "200"),
    Bad({"model": 5}, "model"),
    Bad({"refdesk": {"source_events": "perhaps"}}, "refdesk.source_events"),
    Bad({"refdesk": {"top_k": None}}, "refdesk.top_k"),
    Bad({"refdesk": []}, "refdesk"),
]
RESPONSES_ = [
    Bad({"input": []}, "input"),
    Bad({"input": None}, "input", "a list of items"),
    Bad({"input": 5}, "input", "a list of items"),
    Bad({"input": ["x"]}, "input", "each a JSON object"),
    Bad({"input": " "}, "input.0.content", "blank"),
    Bad({"input": "x" * 8193}, "input.0.content", "8,193"),
    Bad({"input": turns("assistant")}, "input", "no message has the role 'user'"),
    Bad({"input": turns("user", "tool")}, "input.1.role", "'assistant'"),
    Bad({"input": [USER, GIVEN]}, "input.1.call_id", "no call 'a' waits"),
    Bad({"input": [USER, ASKED, USER]}, "input.2", "'a' has no result"),
    Bad(
        {"input": [{"role": "user", "content": [INPUT_IMAGE]}, USER]},
        "input.0.content.0.image_url",
        "first bytes",
    ),
    Bad(
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        "input.0.content.0.file_id",
        "no files are stored",
    ),
    Bad(
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input.0.content.0.image_url",
    ),
    Bad(
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        "input.0.content.0.type",
        "'input_file'",
    ),
    Bad(
        {"input": [USER, ASKED, {**GIVEN, "output": [INPUT_IMAGE]}]},
        "input.2.output.0.type",
    ),
    Bad({"input": [USER, {"type": "reasoning", "summary": []}]}, "input.1.type", "'reasoning'"),
    Bad({"tools": [{**tool(), "name": "f", "parameters": NO_SCHEMA}]}, "tools.0.parameters"),
    Bad({"tools": [{"type": "web_search"}]}, "tools.0.type", "'web_search'"),
    Bad({"tools": ["f"]}, "tools"),
    Bad({"tool_choice": {"type": "file_search"}}, "tool_choice", "'required'"),
    Bad({"tool_choice": "required"}, "tool_choice", "no tools"),
    Bad({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    Bad(
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": NO_SCHEMA}}},
        "text.format.schema",
    ),
    Bad({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    Bad({"max_output_tokens": 0}, "max_output_tokens"),
    Bad({"max_output_tokens": 10**7}, "max_output_tokens"),
    Bad({"metadata": {"a": "x" * 513}}, "metadata.a"),
    Bad({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "16"),
    Bad({"instructions": 5}, "instructions"),
    Bad({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
    Bad({"background": True}, "background"),
    Bad({"stream": "yes"}, "stream"),
    Bad({"refdesk": {"topk": 3}}, "refdesk.topk"),
]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 700
    return error


async def is_well(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=GOOD[path])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("path", "cases"), [(CHAT, CHATS), (RESPONSES, RESPONSES_)])
async def test_a_body_that_makes_no_sense_is_told_which_field_is_wrong(
    serve: Serve, path: str, cases: list[Bad]
) -> None:
    async with serve(Desk()) as client:
        for case in cases:
            answer = await client.post(path, json={**GOOD[path], **case.fields})
            assert answer.status_code == 400, (case, answer.text[:300])
            error = error_of(answer)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
            assert error["param"] == case.param, (case, error)
            assert case.words in error["message"], (case, error)
        await is_well(client, path)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_what_is_no_json_object_in_utf_8_is_refused_as_such(serve: Serve, path: str) -> None:
    bodies = [
        b"{",
        b"",
        b'{"model": "\xff"}',
        b'{"refdesk": {"top_k": NaN}}',
        b'{"n": Infinity}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"tools": ' + b'{"a":' * 100_000,
        '{"model": "auto"}'.encode("utf-16"),
    ]
    async with serve(Desk()) as client:
        for body in bodies:
            answer = await client.post(path, content=body, headers=JSON)
            assert answer.status_code == 400, (body[:20], answer.text[:300])
            assert error_of(answer)["code"] in ("invalid_json", "invalid_request")
        for body in (b"[]", b"5", b"null", b'"x"'):
            answer = await client.post(path, content=body, headers=JSON)
            assert answer.status_code == 400
            assert "send a JSON object" in error_of(answer)["message"]
        for kind in ("text/plain", "multipart/form-data", ";;;"):
            headers = {"content-type": kind}
            answer = await client.post(path, content=b'{"model": "auto"}', headers=headers)
            assert answer.status_code == 400
            assert "Content-Type: application/json" in error_of(answer)["message"]
        await is_well(client, path)


async def test_ten_megabytes_of_conversation_are_refused_and_forty_are_not_read(
    serve: Serve,
) -> None:
    async with serve(Desk()) as client:
        for path, field, error in (
            (CHAT, "messages", "over 400,000 characters"),
            (RESPONSES, "input", "over 400,000 characters"),
        ):
            turn = {"role": "user", "content": "x" * 100_000}
            answer = await client.post(path, json={field: [turn] * 100})
            assert answer.status_code == 400
            assert error in error_of(answer)["message"]
            content = b'{"' + b" " * (40 * 1024 * 1024)
            answer = await client.post(path, content=content, headers=JSON)
            assert answer.status_code == 413
            assert error_of(answer)["code"] == "body_too_large"
            await is_well(client, path)


async def test_deep_nesting_within_a_body_does_no_harm(serve: Serve) -> None:
    deep = b'{"$defs": ' + b'{"a": ' * 500 + b"{}" + b"}" * 500 + b"}"
    tools = {
        CHAT: b'[{"type": "function", "function": {"name": "f", "parameters": %s}}]',
        RESPONSES: b'[{"type": "function", "name": "f", "parameters": %s}]',
    }
    asked = {CHAT: b'"messages": [{"role": "user", "content": "x"}]', RESPONSES: b'"input": "x"'}
    async with serve(Desk()) as client:
        for path in (CHAT, RESPONSES):
            body = b"{%s, " % asked[path] + b'"tools": ' + tools[path] % deep + b"}"
            answer = await client.post(path, content=body, headers=JSON)
            assert answer.status_code == 400, answer.text[:300]
            error_of(answer)
            await is_well(client, path)


async def test_an_assistant_may_speak_first(serve: Serve) -> None:
    async with serve(Desk()) as client:
        for path, field in ((CHAT, "messages"), (RESPONSES, "input")):
            answer = await client.post(path, json={field: turns("assistant", "user")})
            assert answer.status_code == 200, answer.text


async def test_a_model_that_may_not_write_is_the_same_error_on_both_routes(
    serve: Serve, tmp_path: Path
) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"model": "gpt-9"}, 404, "model_not_found"),
        ({"model": "gone"}, 410, "model_retired"),
        ({"model": "large-a", "refdesk": {"data_class": "secret"}}, 403, "forbidden_model"),
    ]
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, _, _):
        for fields, status, code in cases:
            for stream in (False, True):
                told = [
                    await client.post(path, json={**GOOD[path], **fields, "stream": stream})
                    for path in (CHAT, RESPONSES)
                ]
                assert [one.status_code for one in told] == [status] * 2
                errors = [error_of(one) for one in told]
                assert errors[0] == errors[1]
                assert (errors[0]["code"], errors[0]["param"]) == (code, "model")
                assert "large-b" not in errors[0]["message"]
    assert not models.asked


async def test_a_dead_model_is_replaced_on_both_routes_and_named(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer(l1=None)  # its server answers 500
    async with policed(serve, tmp_path, models) as (client, _, _):
        for path in (CHAT, RESPONSES):
            answer = await client.post(path, json={**GOOD[path], "model": "large"})
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["refdesk"]["degraded"]) >= 1
            reasons = answer.json()["refdesk"]["decision"]["reasons"]
            assert any(one.startswith("endpoint_failed: ") for one in reasons)
    assert models.asked["l1"] >= 1
    assert models.asked["l2"] >= 1
