"""A policy's `mask` and `datamark` in the running service: what leaves it, and what comes back."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.generate.reading.sensitivity import kinds
from tests.calling import WEATHER, calls
from tests.desk import Desk
from tests.streams import pieces, streamed, text_of
from tests.upstream import Behaviour, Upstream, Wire, good, upstream
from tests.writers import Serve, ask

MAIL, PHONE, ASKER = "ada@example.org", "+49 30 901820", "bob@münchen.de"
QUESTION = "Where does Ada Lovelace read her mail?"
PASSAGES = [
    ("ada.md", f"Ada, {MAIL}", f"Ada Lovelace reads her mail at {MAIL}."),
    ("line.md", "Lines", f"The line of Ada Lovelace is {PHONE}."),
]
POLICY = """\
version: 1
classes: [open]
default_class: open
models:
  outside: {{tier: big, kind: openai, url: {url}/v1, model: big-1, {option},
    price: {{input: 0, output: 0}}, capabilities: [tools, schema]}}
  quote: {{tier: small, kind: extractive, price: {{input: 0, output: 0}}}}
tiers:
  small: {{models: [quote]}}
  big: {{models: [outside]}}
compliance: {{open: ["*"]}}
rules: [{{name: all, when: {{}}, then: {{tier: big, checks: {checks}}}}}]
last_resort: quote
"""


def letters(text: str) -> Behaviour:
    """A model that writes a text letter by letter."""

    async def behave(wire: Wire) -> None:
        await wire.head()
        for letter in text:
            await wire.delta(content=letter)
        await wire.delta(finish="stop")
        await wire.done()

    return behave


def fills(text: str, writing: Callable[[str], Behaviour] = letters) -> Behaviour:
    """A model that writes a text, or by `writing` a tool call with it as its arguments.

    In it, ``EMAIL`` stands for the placeholder of the first passage's address, ``OTHER`` for one
    like it that the model has not read, ``_`` for what that passage has in the place of a space.
    """

    async def behave(wire: Wire) -> None:
        read = json.dumps(wire.body["messages"], ensure_ascii=False)
        reads = re.search(r"reads(.)her.mail.at.(\w+|\S+@\S+)\.", read)
        space, at = reads.groups() if reads else (" ", "")
        written = text.replace("_", space).replace("EMAIL", at)
        await writing(written.replace("OTHER", re.sub(r"\d+", "77", at)))(wire)

    return behave


@asynccontextmanager
async def guarded(
    serve: Serve,
    folder: Path,
    behaviour: Behaviour,
    option: str = "mask: true",
    checks: str = "strict",
) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    """The service over one model on another machine, and that machine."""
    path = folder / "policy.yaml"
    async with upstream(behaviour) as outside:
        path.write_text(POLICY.format(url=outside.url, option=option, checks=checks))
        async with serve(Desk(passages=PASSAGES), policy_file=path, data_dir=folder) as client:
            yield client, outside


def said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def test_what_leaves_has_no_value_and_the_answer_has_it_verified(
    serve: Serve, tmp_path: Path
) -> None:
    behaviour = fills("Ada Lovelace reads her mail at EMAIL [1].")
    async with guarded(serve, tmp_path, behaviour) as (client, outside):
        response = await client.post(
            "/v1/chat/completions",
            json={
                "messages": [
                    {"role": "user", "content": f"I am {ASKER}, who is Ada?"},
                    {"role": "assistant", "content": f"Ask {ASKER} himself."},
                    {"role": "user", "content": f"{QUESTION} I am {ASKER}."},
                ]
            },
        )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["refdesk"]["decision"]["endpoint"].endswith("/v1")
    assert answer["refdesk"]["decision"]["verification"]["passed"]
    assert said(answer) == f"Ada Lovelace reads her mail at {MAIL}. [1]"
    [body] = outside.seen
    sent = json.dumps(body, ensure_ascii=False)
    assert not kinds([sent])
    assert not any(value in sent for value in (MAIL, PHONE, ASKER))
    # The same address is the same placeholder wherever it stands: here in a title and a text.
    assert len(set(re.findall(r"EMAIL_\d+_[a-z]+", sent))) == 2


async def test_a_stream_never_shows_a_placeholder(serve: Serve, tmp_path: Path) -> None:
    behaviour = fills("Ada Lovelace reads her mail at EMAIL, yes, at EMAIL [1].")
    async with guarded(serve, tmp_path, behaviour, checks="light") as (client, _):
        found = await streamed(client, QUESTION)
    assert text_of(found) == f"Ada Lovelace reads her mail at {MAIL}, yes, at {MAIL} [1]."
    assert len(pieces(found)) > 20  # as it was written, not at once


@pytest.mark.parametrize("checks", ["strict", "light", "off"])
async def test_a_placeholder_that_nobody_gave_out_is_a_leak_in_every_profile(
    serve: Serve, tmp_path: Path, checks: str
) -> None:
    behaviour = fills("Ada Lovelace reads her mail at OTHER [1].")
    async with guarded(serve, tmp_path, behaviour, checks=checks) as (client, _):
        answer = await ask(client, QUESTION)
        found = await streamed(client, QUESTION)
    verification = answer["refdesk"]["decision"]["verification"]
    assert "leak" in {one["check"] for one in verification["failures"]}
    assert said(answer) == f"Ada Lovelace reads her mail at {MAIL}. [1]"  # the last resort's
    assert "EMAIL" not in text_of(found)
    assert [one["error"]["code"] for one in found if "error" in one] == (
        [] if checks == "strict" else ["leak"]
    )


async def test_arguments_of_a_tool_call_have_the_values(serve: Serve, tmp_path: Path) -> None:
    behaviour = fills('{"city": "EMAIL"}', calls)
    async with guarded(serve, tmp_path, behaviour) as (client, _):
        answer = await ask(client, QUESTION, tools=[WEATHER])
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": MAIL}


async def test_results_of_tools_are_masked(serve: Serve, tmp_path: Path) -> None:
    arguments = json.dumps({"city": ASKER})
    function = {"name": "weather", "arguments": arguments}
    called = [{"id": "c1", "type": "function", "function": function}]
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": called},
        {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"mail": ASKER})},
    ]
    behaviour = fills("Ada Lovelace reads her mail at EMAIL [1].")
    async with guarded(serve, tmp_path, behaviour) as (client, outside):
        body = {"messages": turns, "tools": [WEATHER]}
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    [body] = outside.seen
    assert not kinds([json.dumps(body, ensure_ascii=False)])
    roles = [one["role"] for one in body["messages"]]
    assert roles[-2:] == ["assistant", "tool"]


async def test_only_the_kinds_that_the_policy_lists_are_masked(
    serve: Serve, tmp_path: Path
) -> None:
    behaviour = fills("Ada Lovelace reads her mail at EMAIL [1].")
    async with guarded(serve, tmp_path, behaviour, "mask: [phone]") as (client, outside):
        await ask(client, QUESTION)
    sent = json.dumps(outside.seen)
    assert MAIL in sent
    assert PHONE not in sent


async def test_with_datamarks_the_prompt_has_them_and_the_answer_has_none(
    serve: Serve, tmp_path: Path
) -> None:
    behaviour = fills(f"Ada_Lovelace reads her_mail at {MAIL} [1].")
    async with guarded(serve, tmp_path, behaviour, "datamark: true") as (client, outside):
        answer = await ask(client, QUESTION)
    [body] = outside.seen
    system, user = (one["content"] for one in body["messages"])
    found = re.search(r"Ada(\W)Lovelace\1reads\1her", user)
    assert found
    assert found[1] != " "
    assert found[1] in system
    assert said(answer) == f"Ada Lovelace reads her mail at {MAIL}. [1]"


@pytest.mark.parametrize("option", ["mask: [name]", "mask: email", "datamark: maybe"])
async def test_a_policy_with_an_option_that_is_none_is_refused(
    serve: Serve, tmp_path: Path, option: str
) -> None:
    with pytest.raises(Exception, match=r"models\.outside"):
        async with guarded(serve, tmp_path, good, option):
            pass
