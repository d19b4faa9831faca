"""Model servers that refuse a field of ours: asked without it at once, and for a while."""

import asyncio
import json
from typing import Any

import pytest

from services.generate.prompting.chat import Chat
from services.generate.tiers.breaker import Door, Limits
from services.generate.tiers.endpoint import DraftRequest
from services.generate.tiers.openai import OpenAIEndpoint
from tests.asking import Asking, asking
from tests.upstream import GOOD, Behaviour, Wire, answers, good

STREAM, HEAT, LENGTH = "stream_options", "temperature", "max_tokens"


def openai(message: str, param: str | None, code: str | None) -> dict[str, Any]:
    told = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return {"error": told}


EXTRA = {
    "type": "extra_forbidden",
    "loc": ["body", STREAM],
    "msg": "Extra inputs are not permitted",
    "input": {"include_usage": True},
}
NO_LENGTH = openai(
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    LENGTH,
    "unsupported_parameter",
)
NO_HEAT = openai(
    "Unsupported value: 'temperature' does not support 0.0 with this model. "
    "Only the default (1) value is supported.",
    HEAT,
    "unsupported_value",
)
# As servers say it, and what they mean.
REFUSALS: dict[str, tuple[int, Any, str]] = {
    "azure": (400, openai(f"Unrecognized request argument supplied: {STREAM}", None, None), STREAM),
    "azure-2": (
        400,
        openai(f"Unknown parameter: '{STREAM}'.", STREAM, "unknown_parameter"),
        STREAM,
    ),
    "databricks": (400, {"message": f'Bad request: json: unknown field "{STREAM}"'}, STREAM),
    "fastapi": (422, {"detail": [EXTRA]}, STREAM),
    "mistral": (
        422,
        {
            "object": "error",
            "message": {"detail": [{**EXTRA, "loc": ["body", STREAM, "include_usage"]}]},
            "param": None,
        },
        STREAM,
    ),
    "vllm": (400, {"object": "error", "message": str([EXTRA]), "code": 400}, STREAM),
    "tgi": (422, f"Failed to deserialize the JSON body: {STREAM}: unknown field".encode(), STREAM),
    "tgi-2": (
        422,
        {"error": "`temperature` must be strictly positive", "error_type": "validation"},
        HEAT,
    ),
    "google": (400, {"errors": [f'Unknown name "{STREAM}": Cannot find field.']}, STREAM),
    "anthropic": (400, {"error": {"message": f"`{HEAT}` is deprecated for this model."}}, HEAT),
    "short": (400, {"detail": f"this model doesn't support {HEAT}"}, HEAT),
    "openai-length": (400, NO_LENGTH, LENGTH),
    "openai-heat": (400, NO_HEAT, HEAT),
}


def refuses(*refusals: tuple[int, Any, str]) -> Behaviour:
    """A server that refuses each of the fields, one after another, and answers without them."""

    async def behave(wire: Wire) -> None:
        for status, told, field in refusals:
            if field in wire.body:
                await wire.whole(status, told)
                return
        await good(wire)

    return behave


def sent(body: dict[str, Any]) -> set[str]:
    """The fields that can be spared, as they were sent."""
    return body.keys() & {STREAM, HEAT, LENGTH, "max_completion_tokens"}


def saved(asked: Asking) -> int:
    """Retries that the budget still has."""
    return sum(iter(asked.resilience.budget.retry, False))


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_server_that_refuses_a_field_is_asked_without_it_and_so_from_then_on(
    name: str,
) -> None:
    field = REFUSALS[name][2]
    async with asking(refuses(REFUSALS[name])) as (asked, server):
        for _ in range(3):
            assert (await asked.draft()).text == GOOD
        assert asked.door is Door.CLOSED
        assert saved(asked) == 3  # no retry was used
    without = {STREAM, HEAT, LENGTH} - {field}
    if field == LENGTH:
        without.add("max_completion_tokens")
        assert server.seen[1]["max_completion_tokens"] == server.seen[0][LENGTH]
    assert [sent(body) for body in server.seen] == [{STREAM, HEAT, LENGTH}, *[without] * 3]
    assert server.seen[1]["messages"] == server.seen[0]["messages"]
    assert server.connections == 1
    assert (asked.meter.prompt_tokens, asked.meter.completion_tokens) == (300, 12)


async def test_one_that_refuses_one_field_after_another_is_understood() -> None:
    all_three = refuses(*(REFUSALS[name] for name in ("openai-length", "openai-heat", "fastapi")))
    async with asking(all_three) as (asked, server):
        assert (await asked.draft()).text == GOOD
        assert (await asked.draft()).text == GOOD
    assert len(server.seen) == 5
    assert sent(server.seen[-1]) == {"max_completion_tokens"}


async def test_what_was_refused_is_tried_again_ten_minutes_later() -> None:
    now = 1000.0

    async def slow(wire: Wire) -> None:
        nonlocal now
        now += 2
        await good(wire)

    async with asking(refuses(REFUSALS["azure"]), good, slow, good) as (asked, server):
        asked.resilience.clock = lambda: now
        await asked.draft()
        now += 599
        for _ in range(2):
            await asked.draft()
    assert [STREAM in body for body in server.seen] == [True, False, False, True]


async def test_the_field_that_is_told_beside_the_reason_is_left_out_alone() -> None:
    wordy = openai(f"Unsupported: {STREAM}, though {HEAT} is not supported either", STREAM, None)
    async with asking(refuses((400, wordy, STREAM))) as (asked, server):
        await asked.draft()
    assert sent(server.seen[-1]) == {HEAT, LENGTH}


TOOLS = Chat(tools=({"type": "function", "function": {"name": "f", "parameters": {}}},))
JSON = Chat(response_format={"type": "json_object"})
ALL = f"unsupported: {STREAM} {HEAT} {LENGTH} max_completion_tokens"


@pytest.mark.parametrize("chat", [TOOLS, JSON])
@pytest.mark.parametrize(
    "told",
    [
        {"error": {"message": f"Failed to parse: {ALL}", "param": None}},
        {"error": {"message": f"Failed to parse: {ALL}", "param": "tools.0.temperature"}},
        {"detail": [{"loc": ["body", "tools", 0, HEAT], "msg": ALL}]},
        ALL.encode(),
    ],
)
async def test_words_of_a_model_or_a_caller_in_a_refusal_change_nothing(
    chat: Chat, told: Any
) -> None:
    async def behave(wire: Wire) -> None:
        plain = not wire.body.keys() & {"tools", "response_format"}
        await (good(wire) if plain else wire.whole(400, told))

    async with asking(behave) as (asked, server):
        await asked.failure(chat=chat)
        await asked.draft()
    assert [sent(body) for body in server.seen] == [{STREAM, HEAT, LENGTH}] * 2


async def test_a_field_that_is_told_beside_the_reason_is_left_out_with_tools_too() -> None:
    async with asking(refuses(REFUSALS["openai-heat"])) as (asked, server):
        await asked.draft(chat=TOOLS)
    assert [HEAT in body for body in server.seen] == [True, False]


async def test_what_one_model_refuses_others_of_its_server_still_get() -> None:
    async with asking(refuses(REFUSALS["azure"])) as (asked, server):
        await asked.draft()
        other = OpenAIEndpoint("utility", server.url, "small", None, asked.resilience)
        await other.draft(DraftRequest("When?", (), (), 160, "0f0f"))
        await other.close()
    tried = [(body["model"], STREAM in body) for body in server.seen]
    assert tried == [("big", True), ("big", False), ("small", True), ("small", False)]


async def test_a_server_without_usage_is_counted_by_estimate() -> None:
    async def tells_none(wire: Wire) -> None:
        if STREAM in wire.body:
            await wire.whole(400, REFUSALS["azure"][1])
            return
        await wire.head()
        await wire.delta(content=GOOD, finish="stop")
        await wire.done()

    async with asking(tells_none) as (asked, _):
        await asked.draft()
        first = asked.meter
        await asked.draft()
    assert not first.exact
    assert 100 < first.prompt_tokens == asked.meter.prompt_tokens  # the refused prompt cost nothing


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, openai("max_tokens is too large: 160", LENGTH, "invalid_value")),
        (400, openai("tools are not supported", "tools", None)),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "no", "input": {STREAM: 1, HEAT: 0}}]}),
        (400, {"object": "error", "message": f"[{{'loc': ('body',), 'input': {{'{HEAT}': 0}}}}]"}),
        (400, b"x" * 2000 + HEAT.encode()),
        (400, b"my_temperature temperatures unsupported"),
        (400, b"Bad request\nunsupported: temperature"),
        (400, {"error": {"message": "Failed. See below.", "failed_generation": ALL, "code": ALL}}),
        (400, {"error": {"message": f"{'x' * 300} {ALL}"}, "input": ALL}),
        (400, {"error": {"message": f"Which {HEAT}? Your question is invalid."}}),
        (400, openai(f"Unsupported: your prompt says {HEAT}", "messages.0.content", None)),
        (400, openai("Unsupported parameter: 'max_tokens'", LENGTH, "unsupported_parameter")),
        (400, openai("'max_tokens' or 'max_completion_tokens' is too large: 160", LENGTH, None)),
        (400, {"error": {"error": {"error": {"error": {"error": {"message": ALL}}}}}}),
        (400, b"[" * 4000),
        (401, REFUSALS["azure"][1]),
        (404, REFUSALS["azure"][1]),
        (500, REFUSALS["azure"][1]),
    ],
)
async def test_a_refusal_that_is_not_for_such_a_field_is_one(status: int, told: Any) -> None:
    async def behave(wire: Wire) -> None:
        await wire.whole(status, told)

    async with asking(behave) as (asked, server):
        assert (await asked.failure()).code == "bad_upstream"
    assert len(server.seen) == 1


async def test_a_field_that_is_named_but_not_at_fault_is_sent_again() -> None:
    too_long = openai("Invalid 'max_tokens' or 'max_completion_tokens': too large", LENGTH, None)

    async def refuses_long_ones(wire: Wire) -> None:
        if "tools" in wire.body:
            await wire.whole(400, too_long)
        else:
            await good(wire)

    async with asking(refuses_long_ones) as (asked, server):
        await asked.failure(chat=TOOLS)
        assert asked.door is Door.CLOSED
        await asked.draft()
    assert len(server.seen) == 3
    assert sent(server.seen[-1]) == {STREAM, HEAT, LENGTH}


async def test_what_a_client_sent_is_never_left_out() -> None:
    told = openai("Unrecognized request argument supplied: response_format", None, None)

    async def behave(wire: Wire) -> None:
        await wire.whole(400, told)

    async with asking(behave) as (asked, server):
        await asked.failure(chat=Chat(response_format={"type": "json_object"}))
    assert len(server.seen) == 1


async def test_a_server_that_goes_on_refusing_is_let_be() -> None:
    told = json.dumps(REFUSALS["azure"][1]) + NO_HEAT["error"]["message"]

    async def behave(wire: Wire) -> None:
        await wire.whole(400, told.encode())

    async with asking(behave) as (asked, server):
        for _ in range(Limits().minimum):
            assert (await asked.failure()).code == "bad_upstream"
        assert asked.door is Door.CLOSED
        assert asked.meter.prompt_tokens == 0
    assert len(server.seen) == 2 * Limits().minimum


async def test_a_server_that_fails_without_the_field_is_tried_again_like_any_other() -> None:
    refused = refuses(REFUSALS["azure"])
    async with asking(refused, answers(503), refused, good) as (asked, server):
        assert (await asked.draft()).text == GOOD
    assert [STREAM in body for body in server.seen] == [True, False, True, False]


async def test_drafts_that_are_refused_at_the_same_time_are_all_written() -> None:
    async with asking(refuses(REFUSALS["azure"], REFUSALS["openai-heat"])) as (asked, server):
        drafts = await asyncio.gather(*(asked.draft() for _ in range(8)))
        assert {draft.text for draft in drafts} == {GOOD}
        before = len(server.seen)
        await asked.draft()
    assert before <= 8 * 3
    assert len(server.seen) == before + 1
