"""Conversations over HTTP: what of them a model reads, in which turns, and what is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.calling import WEATHER, call, served
from tests.desk import Desk
from tests.upstream import good, upstream
from tests.writers import WHEN, Serve, records

ASKED = {"role": "user", "content": WHEN}


def turn(n: int, words: int = 1) -> list[dict[str, Any]]:
    """A question and its answer."""
    return [
        {"role": "user", "content": f"Question {n}? " + "word " * words},
        {"role": "assistant", "content": f"Answer {n}."},
    ]


async def test_a_model_reads_the_turns_before_the_question(serve: Serve, tmp_path: Path) -> None:
    before = [
        {"role": "system", "content": "Answer like a pirate."},
        *turn(1),
        {"role": "developer", "content": [{"type": "text", "text": "Speak of ships."}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Who was Ada?", "name": "bob"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call("Paris")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            body = {"messages": [*before, ASKED]}
            response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    system, *between, asking = model.seen[0]["messages"]
    assert [one["role"] for one in between] == ["user", "assistant", "user", "assistant", "tool"]
    assert between[2]["name"] == "bob"
    assert between[3]["tool_calls"] == [call("Paris")]
    assert between[4] == {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
    assert asking["content"].endswith(f"Question: {WHEN}")
    # The rules about sources come first, and no passage is with them.
    rules, pirate = system["content"].index("numbered sources"), system["content"].index("pirate")
    assert rules < pirate < system["content"].index("Speak of ships.")
    assert "Ada Lovelace wrote" not in system["content"]
    # A tool's result of an earlier turn is history, not a source.
    assert [one["n"] for one in response.json()["refdesk"]["passages"]] == [1, 2, 3]


async def test_the_oldest_turns_are_left_out_of_a_long_conversation(
    serve: Serve, tmp_path: Path
) -> None:
    rules = {"role": "system", "content": "Be kind."}
    turns = [one for n in range(9) for one in turn(n, words=500)]
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            body = {"messages": [rules, *turns, ASKED]}
            answer = (await client.post("/v1/chat/completions", json=body)).json()
            explained = (await client.post("/v1/route", json=body)).json()
    system, *between, _ = model.seen[0]["messages"]
    assert "Be kind." in system["content"]
    assert [one["content"].split("?")[0] for one in between if one["role"] == "user"] == [
        "Question 5",
        "Question 6",
        "Question 7",
        "Question 8",
    ]
    said = "10 messages before the question left out"
    assert f"history_cut: {said}" in answer["refdesk"]["decision"]["reasons"]
    assert said in [one["seen"] for one in explained["reasons"] if one["name"] == "history_cut"]


SECRET = "Write to jane.doe@example.org."
KEPT_FROM = [
    [{"role": "system", "content": SECRET}, ASKED],
    [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "Done."}, ASKED],
    [ASKED, {"role": "assistant", "tool_calls": [call(SECRET)]}, {
        "role": "tool", "tool_call_id": "call_1", "content": "sunny"}],
    [ASKED, {"role": "assistant", "tool_calls": [call("Paris")]}, {
        "role": "tool", "tool_call_id": "call_1", "content": SECRET}],
]  # fmt: skip


async def test_what_is_sensitive_is_found_in_every_message_that_is_sent(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        bent = json.loads(policy.read_text())
        bent |= {"classes": ["open", "secret"], "detect": {"email": "secret"}}
        bent["compliance"] = {"open": ["*"], "secret": ["quote"]}
        policy.write_text(json.dumps(bent))
        described = {**WEATHER["function"], "description": SECRET}
        sent: list[dict[str, Any]] = [{"messages": one} for one in KEPT_FROM]
        sent.append({"messages": [ASKED], "tools": [{"type": "function", "function": described}]})
        parted = SECRET.replace("@", "\u00ad@\u200b")
        sent.append({"messages": [{"role": "user", "content": parted}, ASKED]})
        sent.append({"messages": [{"role": "user", "content": parted}]})
        async with serve(Desk(), policy_file=policy) as client:
            for body in sent:
                response = await client.post("/v1/route", json=body)
                told = response.json()
                if response.status_code == 200:
                    assert told["data_class_source"] == "detected email"
                else:  # no writer that may see it knows tools
                    assert "compliance" in told["error"]["message"], response.text
                await client.post("/v1/chat/completions", json=body)
    assert model.seen == []


async def test_a_conversation_counts_when_a_prompt_is_estimated(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        bent = json.loads(policy.read_text())
        bent["models"]["m0"]["context"] = 2000
        policy.write_text(json.dumps(bent))
        async with serve(Desk(), policy_file=policy) as client:
            body = {"messages": [*turn(1, words=1500), ASKED]}
            long = (await client.post("/v1/route", json=body)).json()
            short = (await client.post("/v1/route", json={"messages": [ASKED]})).json()
    assert short["model"] == "m0"
    assert {"model": "m0", "rule": "context"}.items() <= long["ruled_out"][0].items()


def answered(*ids: str) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": one, "content": "sunny"} for one in ids]


def calling(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call("Rome", one) for one in ids]}


REFUSED: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"role": "function", "name": "f", "content": "x"}, ASKED], "messages.0.role", "'tool'"),
    ([*answered("a"), ASKED], "messages.0.tool_call_id", "no call 'a' waits"),
    ([ASKED, {"role": "tool", "content": "x"}], "messages.1.tool_call_id", "names its call"),
    ([ASKED, calling("a")], "messages.1", "the call 'a' has no result"),
    ([calling("a"), ASKED], "messages.1", "the call 'a' has no result"),
    ([ASKED, calling("a", "b"), *answered("b")], "messages.2", "the call 'a' has no result"),
    ([ASKED, calling("a"), *answered("a", "a")], "messages.3.tool_call_id", "answered once"),
    ([ASKED, calling("a", "a"), *answered("a")], "messages.1.tool_calls", "the same id"),
    ([{**calling("a"), "role": "user"}, ASKED], "messages.0.tool_calls", "only an assistant"),
    (
        [{"role": "assistant", "content": [{"type": "image_url"}]}, ASKED],
        "messages.0.content.0.type",
        "of the user alone",
    ),
    (
        [{"role": "system", "content": "long " * 12_000}, ASKED],
        "messages",
        "put long texts into a corpus",
    ),
]


async def test_messages_in_disorder_are_refused_in_a_sentence(serve: Serve) -> None:
    async with serve(Desk()) as client:
        for messages, param, said in REFUSED:
            response = await client.post("/v1/chat/completions", json={"messages": messages})
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, param), error
            assert said in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_draft_that_nobody_waited_for_is_on_record_with_its_tokens_and_cost(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    async def endless(wire: Any) -> None:
        await wire.head()
        for _ in range(20):
            await wire.delta(content="Hopper ")
        await wire.gone()

    async with upstream(endless) as model:
        policy = served(tmp_path, model.url, checks="light", price=1000)
        data = tmp_path / "data"
        async with serve(Desk(), policy_file=policy, data_dir=data) as client:
            body = {"messages": [ASKED], "stream": stream}
            if stream:
                async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    lines = response.aiter_lines()
                    # The last letters may be held back, as the beginning of a secret.
                    while "Hop" not in await anext(lines):
                        pass
            else:
                with pytest.raises(httpx.ReadTimeout):
                    await client.post("/v1/chat/completions", json=body, timeout=0.3)
            await asyncio.wait_for(model.left.wait(), 30)
    [record] = records(data)
    [attempt] = record["attempts"]
    assert record["status"] == "abandoned"
    assert (attempt["model"], attempt["ended"], attempt["exact"]) == ("m0", "stopped", False)
    assert attempt["prompt_tokens"] > 100
    assert attempt["completion_tokens"] >= 20
    assert attempt["cost_nano_dollars"] == 1000 * (
        attempt["prompt_tokens"] + attempt["completion_tokens"]
    )
    assert record["cost_nano_dollars"] == attempt["cost_nano_dollars"]
