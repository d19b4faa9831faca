"""A model server as a writer: what it is sent, and what of its answers is understood."""

import asyncio
import json
from typing import Any

import pytest

from services.generate.prompting.chat import Chat, ToolCall
from services.generate.tiers.endpoint import Draft
from tests.asking import QUICK, asking, event
from tests.upstream import GOOD, Behaviour, Wire, good, sends


async def test_a_draft_is_read_as_it_is_written_and_counted_as_the_server_counts() -> None:
    async with asking(good) as (asked, server):
        draft = await asked.draft()
        again = await asked.draft(show=None)
    assert draft == Draft(GOOD, "stop", "big-1")
    assert again == draft
    assert asked.shown == []
    assert (asked.meter.prompt_tokens, asked.meter.completion_tokens) == (300, 12)
    assert asked.meter.exact
    assert server.seen[0]["stream"] is True
    assert server.seen[0]["stream_options"] == {"include_usage": True}
    assert server.connections == 1  # the second draft came over the same one


async def test_each_piece_is_shown_as_it_comes() -> None:
    go_on = asyncio.Event()

    async def halting(wire: Wire) -> None:
        await wire.head()
        await wire.delta(content="One. ")
        await go_on.wait()
        await wire.delta(content="Two.", finish="stop")
        await wire.done()

    first = asyncio.Event()
    async with asking(halting) as (asked, _):
        task = asyncio.create_task(asked.draft(show=lambda _: first.set()))
        await first.wait()
        assert not task.done()
        go_on.set()
        assert (await task).text == "One. Two."


async def test_what_a_client_sent_of_tools_and_formats_is_sent_on_and_nothing_else() -> None:
    tools = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    chat = Chat(tools=tools, tool_choice="auto", response_format={"type": "json_object"})
    async with asking(good) as (asked, server):
        await asked.draft(chat=chat)
        await asked.draft()
    assert server.seen[0]["tools"] == list(tools)
    assert server.seen[0]["tool_choice"] == "auto"
    assert server.seen[0]["response_format"] == {"type": "json_object"}
    assert "parallel_tool_calls" not in server.seen[0]
    assert not {"tools", "tool_choice", "response_format"} & server.seen[1].keys()


async def test_tool_calls_are_put_together_from_their_parts_by_their_index() -> None:
    async def calls(wire: Wire) -> None:
        await wire.head()
        await wire.delta(
            role="assistant",
            content=None,
            tool_calls=[
                {"index": 1, "id": "b", "type": "function", "function": {"name": "g"}},
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}},
            ],
        )
        await wire.delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}])
        await wire.delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}])
        await wire.delta(finish="tool_calls")
        await wire.done()

    async with asking(calls) as (asked, _):
        draft = await asked.draft()
    assert draft.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    assert draft.text == ""
    assert not draft.declined


WHOLE = {"model": "big-1", "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("behaviour", "finish"),
    [
        (sends(json.dumps(WHOLE).encode(), kind="application/json"), "stop"),
        (sends(b"\n " + json.dumps(WHOLE, indent=1).encode(), kind="text/plain"), "stop"),
        (sends(b"data: " + json.dumps(WHOLE).encode() + b"\n\n"), "stop"),
        (sends(b": hello\n\n", b"data:" + event("Yes.", "length") + b"\n\n"), "length"),
        (sends(b"data: " + event("Yes.", "stop") + b"\r", b"\n\r", b"\n"), "stop"),
        (sends(b"data: " + event("Yes.", "stop") + b"\r\r"), "stop"),
        (sends(b"data: " + event("Yes.", "stop")), "stop"),  # no blank line at the end
        (sends(*(bytes([one]) for one in b"data: " + event("Yes.", "stop") + b"\n\n")), "stop"),
        (sends(b"data: " + event("Yes.", "stop").replace(b", ", b",\ndata: ") + b"\n\n"), "stop"),
        (sends(b"event: x\nid: 1\ndata: " + event("Yes.", "stop", x=1) + b"\n\n"), "stop"),
        (sends(b'data: {"choices": null}\n\ndata: ' + event("Yes.", "stop") + b"\n\n"), "stop"),
        (sends(b"data: " + event("Yes.") + b"\n\ndata: [DONE]\n\n"), "stop"),
        (sends(b"data: " + event("Yes.", "stop") + b"\n\n", end=False), "stop"),
    ],
)
async def test_what_servers_do_to_a_stream_is_understood(behaviour: Behaviour, finish: str) -> None:
    async with asking(behaviour) as (asked, _):
        draft = await asked.draft()
    assert (draft.text, draft.finish_reason) == ("Yes.", finish)
    assert asked.shown == ["Yes."]
    assert not asked.meter.exact  # nobody told the usage


@pytest.mark.parametrize("silent", ["usage", "end"])
async def test_a_server_that_never_ends_a_finished_draft_is_not_waited_for(silent: str) -> None:
    async def stays(wire: Wire) -> None:
        await wire.head()
        await wire.delta(content="Yes.", finish="stop")
        if silent == "end":
            await wire.chunk(b"data: [DONE]\n\n")
        await wire.gone()

    async with asking(stays, times=QUICK) as (asked, _):
        assert (await asked.draft()).text == "Yes."


async def test_usage_in_every_chunk_counts_once_and_the_last_one_holds() -> None:
    async def tells_often(wire: Wire) -> None:
        await wire.head()
        for count in range(1, 4):
            usage = {"prompt_tokens": 300, "completion_tokens": count}
            await wire.chunk(b"data: " + event("word ", usage=usage) + b"\n\n")
        await wire.delta(finish="stop")
        await wire.done()

    async with asking(tells_often) as (asked, _):
        await asked.draft()
    assert (asked.meter.prompt_tokens, asked.meter.completion_tokens) == (300, 3)
    assert asked.meter.exact


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": "300", "completion_tokens": 5},
        {"prompt_tokens": 300.0, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 300, "completion_tokens": 0},
        {"prompt_tokens": 300},
        ["what"],
        "lots",
    ],
)
async def test_usage_that_cannot_be_is_not_believed(usage: Any) -> None:
    async def lies(wire: Wire) -> None:
        await good(wire, usage=usage)

    async with asking(lies) as (asked, _):
        assert (await asked.draft()).text == GOOD
    assert not asked.meter.exact
    assert 100 < asked.meter.prompt_tokens < 1000
    assert 10 < asked.meter.completion_tokens < 100
