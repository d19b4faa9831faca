"""Streams over HTTP on routes whose drafts are shown as they are written, and on strict ones."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.calling import served, writes
from tests.desk import Desk
from tests.streams import events, pieces, streamed, text_of
from tests.upstream import GOOD, Wire, good, upstream
from tests.writers import WHEN, Serve, ask, chat

TRUE = "Ada Lovelace wrote the first program in 1843 [3]."
FALSE = "Ada Lovelace wrote the first program in 1844 [3]."


async def test_pieces_come_as_they_are_written(serve: Serve, tmp_path: Path) -> None:
    read = asyncio.Event()

    async def waits(wire: Wire) -> None:
        await wire.head()
        await wire.delta(content="Ada Lovelace wrote the first pro")  # o begins no secret
        await asyncio.wait_for(
            read.wait(), 30
        )  # the rest is only written once the first piece was read
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
                found += events(line)
                if "Ada" in line:
                    read.set()
    assert pieces(found) == ["Ada Lovelace wrote the first pro", "gram in 1843 [3]."]
    last = found[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["refdesk"]["decision"]["verification"] == {"passed": True, "failures": []}
    [annotation] = last["choices"][0]["delta"]["annotations"]
    cited = annotation["url_citation"]
    assert text_of(found)[cited["start_index"] : cited["end_index"]] == TRUE


async def test_a_shown_sentence_without_a_marker_is_annotated_with_what_supports_it(
    serve: Serve, tmp_path: Path
) -> None:
    bare = "Ada Lovelace wrote the first program in 1843."
    async with upstream(writes(f"{bare} Really [9].")) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await streamed(client, WHEN)
    [annotation] = found[-1]["choices"][0]["delta"]["annotations"]
    cited = annotation["url_citation"]
    assert text_of(found)[cited["start_index"] : cited["end_index"]] == bare
    assert cited["title"] == "History"


async def test_what_was_shown_stays_though_it_fails_and_is_said_to(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await streamed(client, WHEN)
    assert text_of(found) == FALSE
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
            found = await streamed(client, WHEN)
    assert text_of(found) == "Ada Lovelace wrote the first program in 1843. [3]"
    assert "1844" not in text_of(found)


@pytest.mark.parametrize("refusal", ["NOT IN THE SOURCES", "**Not in the sources.**"])
async def test_a_refusal_is_not_shown_as_it_is_written(
    serve: Serve, tmp_path: Path, refusal: str
) -> None:
    async with upstream(writes(refusal)) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await streamed(client, WHEN)
    assert text_of(found).startswith("The sources do not answer this question.")
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
            found = await streamed(client, WHEN)
    assert found[-1]["error"]["code"] == "leak"
    assert text_of(found) == "The code is "


async def test_the_usage_of_all_attempts_and_their_cost_are_told(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(writes(FALSE)) as first, upstream(good) as second:
        policy = served(tmp_path, first.url, second.url, price=1000)
        async with serve(Desk(), policy_file=policy) as client:
            found = await streamed(client, WHEN, stream_options={"include_usage": True})
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


@pytest.mark.parametrize(("text", "answered"), [("{} Not in the sources.", True),
                                                ("Not in the sources. {}", False)])  # fmt: skip
async def test_what_is_shown_of_a_draft_is_an_answer_and_no_refusal(
    serve: Serve, tmp_path: Path, text: str, answered: bool
) -> None:
    async with upstream(writes(text.format(GOOD))) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            found = await streamed(client, WHEN)
    [told] = [one["refdesk"]["decision"] for one in found if one.get("refdesk")]
    assert told["answered"] is answered
    assert ("1843" in text_of(found)) is answered
