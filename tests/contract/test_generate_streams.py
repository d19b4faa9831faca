"""Streams over HTTP on routes whose drafts are shown as they are written, and on strict ones."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.calling import served, writes
from tests.desk import Desk
from tests.upstream import Wire, good, upstream
from tests.writers import WHEN, Serve, ask, chat

TRUE = "Ada Lovelace wrote the first program in 1843 [3]."
FALSE = "Ada Lovelace wrote the first program in 1844 [3]."


async def events(client: httpx.AsyncClient, question: str, **more: Any) -> list[dict[str, Any]]:
    """The events of a stream, without [DONE]."""
    body = chat(question, stream=True, **more)
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def pieces(found: list[dict[str, Any]]) -> list[str]:
    """The pieces of the text, in order."""
    deltas = [one["choices"][0]["delta"] for one in found if one.get("choices")]
    return [delta["content"] for delta in deltas if delta.get("content")]


async def test_pieces_come_as_they_are_written(serve: Serve, tmp_path: Path) -> None:
    read = asyncio.Event()

    async def waits(wire: Wire) -> None:
        await wire.head()
        await wire.delta(content="Ada Lovelace wrote the first pro")  # o begins no secret
        await read.wait()  # the rest is only written once the first piece was read
        await wire.delta(content="gram in 1843 [3].")
        await wire.delta(finish="stop")
        await wire.done()

    async with upstream(waits) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with (
            serve(Desk(), policy_file=policy) as client,
            client.stream("POST", "/v1/chat/completions", json=chat(WHEN, stream=True)) as response,
        ):
            found: list[dict[str, Any]] = []
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    found.append(json.loads(line[6:]))
                if "Ada" in line:
                    read.set()
    assert pieces(found) == ["Ada Lovelace wrote the first pro", "gram in 1843 [3]."]
    last = found[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["refdesk"]["decision"]["verification"] == {"passed": True, "failures": []}
    [annotation] = last["choices"][0]["delta"]["annotations"]
    cited = annotation["url_citation"]
    assert "".join(pieces(found))[cited["start_index"] : cited["end_index"]] == TRUE


async def test_a_shown_sentence_without_a_marker_is_annotated_with_what_supports_it(
    serve: Serve, tmp_path: Path
) -> None:
    bare = "Ada Lovelace wrote the first program in 1843."
    async with upstream(writes(f"{bare} Really [9].")) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN)
    [annotation] = found[-1]["choices"][0]["delta"]["annotations"]
    cited = annotation["url_citation"]
    assert "".join(pieces(found))[cited["start_index"] : cited["end_index"]] == bare
    assert cited["title"] == "History"


async def test_what_was_shown_stays_though_it_fails_and_is_said_to(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN)
    assert "".join(pieces(found)) == FALSE
    decision = found[-1]["refdesk"]["decision"]
    assert decision["verification"]["passed"] is False
    assert "number" in {one["check"] for one in decision["verification"]["failures"]}
    assert any(one.startswith("shown_unverified: ") for one in decision["reasons"])
    assert second.seen == []


async def test_a_whole_answer_of_a_light_route_is_verified_and_escalates(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, WHEN)
    assert "1843" in answer["choices"][0]["message"]["content"]
    assert answer["refdesk"]["decision"]["escalated_from"] == f"tier0:{first.url}"


async def test_nothing_of_a_draft_that_fails_on_a_strict_route_is_streamed(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url)
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN)
    assert "".join(pieces(found)) == "Ada Lovelace wrote the first program in 1843. [3]"
    assert "1844" not in "".join(pieces(found))


@pytest.mark.parametrize("refusal", ["NOT IN THE SOURCES", "**Not in the sources.**"])
async def test_a_refusal_is_not_shown_as_it_is_written(
    serve: Serve, tmp_path: Path, refusal: str
) -> None:
    async with upstream(writes(refusal)) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN)
    assert "".join(pieces(found)).startswith("The sources do not answer this question.")
    assert found[-1]["refdesk"]["decision"]["answered"] is False


async def test_a_leak_stops_the_stream_with_an_error(serve: Serve, tmp_path: Path) -> None:
    async def leaks(wire: Wire) -> None:
        asked = wire.body["messages"][-1]["content"]
        code = asked.partition("<sources ")[2].partition(">")[0]
        await wire.head()
        await wire.delta(content="The code is ")
        for letter in code:
            await wire.delta(content=letter)
        await wire.delta(content=", as you see.", finish="stop")
        await wire.done()

    async with upstream(leaks) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN)
    assert found[-1]["error"]["code"] == "leak"
    assert "".join(pieces(found)) == "The code is "


async def test_the_usage_of_all_attempts_and_their_cost_are_told(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url, price=1000)
        async with serve(Desk(), policy_file=policy) as client:
            found = await events(client, WHEN, stream_options={"include_usage": True})
    usage = {"prompt_tokens": 600, "completion_tokens": 24, "total_tokens": 624}
    trace = found[-2]["refdesk"]
    attempt = {
        "model": "m0",
        "endpoint": first.url,
        "ended": "drafted",
        "prompt_tokens": 300,
        "completion_tokens": 12,
        "exact": True,
        "cost_nano_dollars": 312_000,
    }
    assert found[-1]["usage"] == usage
    assert trace["attempts"] == [attempt, {**attempt, "model": "m1", "endpoint": second.url}]
    assert trace["cost_nano_dollars"] == 624_000
