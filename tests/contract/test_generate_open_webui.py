"""Source events for Open WebUI: for those who ask for them, and for nobody else."""

from typing import Any

import httpx
import pytest

from tests.desk import HANDBOOK, Desk
from tests.streams import streamed
from tests.writers import PORT, Serve

SAME_TITLE = [("a.md", "Ports", HANDBOOK[0][2]), ("b.md", "Ports", HANDBOOK[1][2])]


async def chunks(client: httpx.AsyncClient, **options: Any) -> list[dict[str, Any]]:
    return await streamed(client, PORT, refdesk=options)


async def test_every_passage_is_told_in_order_before_the_text(serve: Serve) -> None:
    async with serve(Desk()) as client:
        told = await chunks(client, source_events=True)
    events = [one["event"] for one in told if "event" in one]
    assert [one["type"] for one in events] == ["source"] * 3
    first, second, _ = (one["data"] for one in events)
    assert first["source"] == {
        "id": "ports.md#0",
        "name": "Ports [1]",
        "url": "https://handbook.example/ports.md",
    }
    assert first["document"] == [HANDBOOK[0][2]]
    assert first["metadata"] == [{"source": "refdesk://handbook/ports.md#0", "name": "Ports [1]"}]
    assert "url" not in second["source"]  # it has no address that a reader could open
    places = [place for place, one in enumerate(told) if "event" in one]
    texts = [
        place
        for place, one in enumerate(told)
        if one["choices"] and one["choices"][0]["delta"].get("content")
    ]
    assert max(places) < min(texts)


async def test_numbers_stay_those_of_the_text_where_titles_are_the_same(serve: Serve) -> None:
    async with serve(Desk(passages=SAME_TITLE)) as client:
        told = await chunks(client, source_events=True)
    # Open WebUI merges what has the same name, or the same source, and counts what is left.
    (one, two) = (chunk["event"]["data"]["metadata"][0] for chunk in told if "event" in chunk)
    assert one["name"] != two["name"]
    assert one["source"] != two["source"]


@pytest.mark.parametrize(
    ("setting", "options", "there"),
    [
        (False, {}, False),
        (False, {"source_events": None}, False),
        (True, {}, True),
        (True, {"source_events": False}, False),
    ],
)
async def test_the_request_counts_before_the_setting(
    serve: Serve, setting: bool, options: dict[str, Any], there: bool
) -> None:
    async with serve(Desk(), source_events=setting) as client:
        told = await chunks(client, **options)
    assert any("event" in one for one in told) is there


async def test_the_official_client_reads_past_them(serve: Serve) -> None:
    import openai

    async with serve(Desk(), source_events=True) as http:
        client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
        async with client.chat.completions.stream(
            model="auto", messages=[{"role": "user", "content": PORT}]
        ) as stream:
            final = await stream.get_final_completion()
        await client.close()
    assert "The rerank service listens on port 8002. [1]" in (
        final.choices[0].message.content or ""
    )
