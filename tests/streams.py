"""A stream of a chat as its reader sees it: its events, and the text that they show."""

import json
from collections.abc import Iterable
from typing import Any

import httpx

from tests.writers import chat

Event = dict[str, Any]
DONE = "data: [DONE]\n\n"  # what a stream that ended well ends with


def events(text: str) -> list[Event]:
    """The events of a stream in order, without comments and [DONE]."""
    lines = (line for line in text.splitlines() if line.startswith("data: {"))
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def streamed(client: httpx.AsyncClient, question: str, **more: Any) -> list[Event]:
    """The events of the answer to a question."""
    body = chat(question, stream=True, **more)
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    found = events(response.text)
    assert response.text.endswith(DONE) is not any("error" in one for one in found)
    return found


def pieces(found: Iterable[Event]) -> list[str]:
    """The pieces of the text that the events show, in order."""
    deltas = [one["choices"][0]["delta"] for one in found if one.get("choices")]
    return [delta["content"] for delta in deltas if delta.get("content")]


def text_of(found: Iterable[Event]) -> str:
    """The text that the events show."""
    return "".join(pieces(found))
