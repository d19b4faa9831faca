"""The forms in which servers give a completion: what of them is text, thought, a call, an error."""

import json
from typing import Any

import pytest

from services.generate.prompting.chat import ToolCall
from services.generate.tiers.breaker import Door
from tests.asking import asking
from tests.upstream import GOOD, Behaviour, Wire, sends


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice], "usage": usage}


def whole(**message: Any) -> Behaviour:
    body = {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}
    return sends(json.dumps(body).encode(), kind="application/json")


def streams(*events: Any, end: str = "\n\n", field: str = "data: ", done: bool = True) -> Behaviour:
    """A server that streams these chunks; a text is sent as it stands."""
    lines = [
        one if isinstance(one, str) else field + json.dumps(one)
        for one in (*events, "data: [DONE]")
    ]
    if not done:
        lines.pop()
    return sends(*(f"{line}{end}".encode() for line in lines))


def words(text: str, **more: Any) -> list[dict[str, Any]]:
    return [chunk(content=f"{word} ", **more) for word in text.split()]


ROLE, STOP = chunk(role="assistant", content=""), chunk(finish="stop")
USAGE = {"prompt_tokens": 300, "completion_tokens": 12}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
FILTERED = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "model": "", "id": ""}

TEXTS: dict[str, Behaviour] = {
    "azure-filter-first": streams(FILTERED, ROLE, *words(GOOD), STOP),
    "crlf": streams(ROLE, *words(GOOD), STOP, end="\r\n\r\n"),
    "no-space": streams(ROLE, *words(GOOD), STOP, field="data:"),
    "openrouter": streams(": OPENROUTER PROCESSING", ROLE, ": x", *words(GOOD), STOP),
    "no-finish": streams(ROLE, *words(GOOD)),
    "empty-finish": streams(ROLE, *words(GOOD, finish=""), chunk(finish="")),
    "no-done": streams(ROLE, *words(GOOD), STOP, done=False),
    "role-then-null": streams(chunk(role="assistant", content=None), *words(GOOD), STOP),
    "null-delta": streams({"choices": [{"index": 0, "delta": None}]}, *words(GOOD), STOP),
    "new-ids": streams(*({**one, "id": str(n)} for n, one in enumerate(words(GOOD))), STOP),
    "parts": streams(
        *(chunk(content=[{"type": "text", "text": f"{word} "}]) for word in GOOD.split()), STOP
    ),
    "thinking-parts": streams(
        chunk(content=[THOUGHT]),
        chunk(content=[THOUGHT, {"type": "text", "text": "Ada "}]),
        chunk(content=[{"type": "reference", "reference_ids": [1]}]),
        *words(GOOD.removeprefix("Ada ")),
        STOP,
    ),
    "string-parts": streams(chunk(content=["Ada ", GOOD.removeprefix("Ada ")]), STOP),
    "whole-parts": whole(content=[THOUGHT, {"type": "text", "text": GOOD}]),
    "whole-thoughts": whole(content=f"<think>Hm.</think>\n\n{GOOD}"),
    "vllm": streams(ROLE, chunk(reasoning_content="Hm."), *words(GOOD), STOP),
    "ollama": streams(chunk(content="", reasoning="Hm."), *words(GOOD), STOP),
    "another-name": streams(chunk(thinking="Hm."), *words(GOOD), STOP),
    "reasoning-object": streams(chunk(reasoning={"text": "Hm."}), *words(GOOD), STOP),
    "think": streams(ROLE, *words(f"<think> Hm. </think> {GOOD}"), STOP),
    "think-letters": streams(*(chunk(content=one) for one in f"<think>\n</think>\n{GOOD}"), STOP),
    "refusal": streams(chunk(content=None, refusal=GOOD), STOP),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_the_text_is_read_and_shown_and_nothing_else(name: str) -> None:
    async with asking(TEXTS[name]) as (asked, _):
        draft = await asked.draft()
        shown = "".join(asked.shown)
        unseen = await asked.draft(show=None)
        assert asked.door is Door.CLOSED
    assert (draft.text, draft.finish_reason) == (GOOD, "stop")
    assert shown.strip() == GOOD
    assert unseen == draft


@pytest.mark.parametrize(
    "last",
    [
        [chunk(finish="stop", usage=USAGE)],
        [STOP, {"choices": [], "usage": USAGE}],
        [STOP, {"choices": [{"index": 0, "delta": {}}], "usage": USAGE}],
        [{**STOP, "usage": None}, {"usage": USAGE}],
    ],
)
async def test_usage_is_found_wherever_it_comes(last: list[Any]) -> None:
    async with asking(streams(*words(GOOD), *last)) as (asked, _):
        await asked.draft()
    assert (asked.meter.prompt_tokens, asked.meter.completion_tokens) == (300, 12)
    assert asked.meter.exact


@pytest.mark.parametrize("name", ["vllm", "ollama", "another-name", "thinking-parts", "think"])
async def test_thoughts_count_as_tokens(name: str) -> None:
    async with asking(TEXTS[name], streams(*words(GOOD), STOP)) as (asked, _):
        await asked.draft()
        with_thoughts = asked.meter.completion_tokens
        await asked.draft()
    assert with_thoughts > asked.meter.completion_tokens


F, G = {"name": "f", "arguments": '{"x": 1}'}, {"name": "g", "arguments": "{}"}
CALLS: dict[str, Behaviour] = {
    "whole-calls": streams(
        chunk(tool_calls=[{"index": 0, "id": "a", "function": F}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "function": G}]),
        chunk(finish="tool_calls"),
    ),
    "empty-ids-later": streams(
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "id": "", "function": {"arguments": '{"x": 1}'}}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "function": G}]),
        chunk(tool_calls=[{"index": 1, "id": "", "function": {"name": "", "arguments": ""}}]),
        chunk(finish="tool_calls"),
    ),
    "same-index": streams(
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"x": 1}'}}]),
        chunk(tool_calls=[{"index": 0, "id": "b", "function": {"name": "g", "arguments": "{"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        STOP,
    ),
    "no-index": streams(
        chunk(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"function": {"arguments": '{"x": 1}'}}]),
        chunk(tool_calls=[{"id": "b", "function": G}]),
        STOP,
    ),
    "no-index-one-chunk": streams(
        chunk(tool_calls=[{"id": "a", "function": F}, {"id": "b", "function": G}]), STOP
    ),
    "name-every-time": streams(
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": '"x": 1}'}}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "function": G}]),
        STOP,
    ),
    "objects": whole(
        content=None,
        tool_calls=[
            {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
            {"id": "b", "function": {"name": "g", "arguments": {}}},
        ],
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_tool_calls_are_told_apart(name: str) -> None:
    async with asking(CALLS[name]) as (asked, _):
        draft = await asked.draft()
    first, second = draft.tool_calls
    assert json.loads(first.arguments) == {"x": 1}
    assert (first.id, first.name) == ("a", "f")
    assert second == ToolCall("b", "g", "{}")
    assert (draft.text, asked.shown) == ("", [])


@pytest.mark.parametrize("unnamed", [None, ""])
async def test_a_call_without_an_id_gets_one_of_its_own(unnamed: str | None) -> None:
    calls = [{"index": n, "id": unnamed, "function": one} for n, one in enumerate((F, G))]
    async with asking(streams(chunk(tool_calls=calls), STOP)) as (asked, _):
        ids = [
            call.id for draft in [await asked.draft() for _ in "12"] for call in draft.tool_calls
        ]
    assert len(set(ids)) == 4
    assert all(ids)


@pytest.mark.parametrize(
    ("last", "door"),
    [
        ({"error": {"message": "no memory", "code": 500}}, Door.OPEN),
        ({"error": "no memory", "error_type": "generation"}, Door.OPEN),
        ({"object": "error", "message": "no memory", "code": 500}, Door.OPEN),
        ({"object": "error", "message": "too long", "code": 400}, Door.CLOSED),
        ({"error": {"code": "server_error"}, **chunk(finish="error", content="")}, Door.OPEN),
        (chunk(finish="error"), Door.OPEN),
        ("error: {}", Door.OPEN),
    ],
)
async def test_an_error_in_mid_stream_is_no_end_of_a_draft(last: Any, door: Door) -> None:
    done = not isinstance(last, str)
    async with asking(streams(*words("Ada Lovelace wrote"), last, done=done)) as (asked, _):
        for _ in range(5):
            assert (await asked.failure()).code == "bad_upstream"
        assert asked.door is door


async def test_a_draft_that_its_server_cut_says_so() -> None:
    async with asking(streams(*words(GOOD), chunk(finish="model_length"))) as (asked, _):
        assert (await asked.draft()).finish_reason == "length"


# --- thoughts within the text ------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["length", "stop"])
async def test_thoughts_that_never_end_are_no_draft_and_no_fault(finish: str) -> None:
    endless = streams(*words("<think> Who wrote the first program?"), chunk(finish=finish))
    async with asking(endless) as (asked, _):
        for _ in range(5):
            assert "without any text" in (await asked.failure()).message
        assert asked.shown == []
        assert asked.door is Door.CLOSED


ALOUD = ["Who ", "was ", "it?", "\n", "</think>", "\n\n", *(f"{word} " for word in GOOD.split())]


async def aloud(wire: Wire) -> None:
    """Thoughts whose opening tag stands in the prompt."""
    await wire.head()
    for piece in ALOUD:
        await wire.delta(content=piece)
    await wire.delta(finish="stop")
    await wire.done()


async def test_thoughts_that_only_end_are_left_out_where_nobody_has_seen_them() -> None:
    async with asking(aloud) as (asked, _):
        for _ in range(2):
            assert (await asked.draft(show=None)).text == GOOD


async def test_where_they_were_seen_the_draft_fails_and_says_what_the_policy_needs() -> None:
    async with asking(aloud) as (asked, _):
        for _ in range(5):
            assert "thinks_first" in (await asked.failure()).message
            assert "".join(asked.shown).strip() == "Who was it?"
        assert asked.door is Door.CLOSED


async def test_of_a_model_that_begins_within_its_thoughts_nothing_is_shown_before_their_end() -> (
    None
):
    plain = streams(*words(GOOD), STOP)
    async with asking(aloud, plain, aloud) as (asked, _):
        for _ in range(3):  # the second one did not think
            assert (await asked.draft(thinks_first=True)).text == GOOD
            assert "".join(asked.shown).strip() == GOOD


async def test_what_one_text_did_changes_nothing_for_the_next() -> None:
    cut = streams(*words(GOOD), chunk(finish="length"))
    async with asking(aloud, cut, cut) as (asked, _):
        assert (await asked.draft(show=None)).text == GOOD
        for _ in range(2):
            assert (await asked.draft()).text == GOOD
            assert len(asked.shown) == len(GOOD.split())


async def test_a_text_that_was_cut_within_its_thoughts_is_no_draft() -> None:
    cut = streams(*words("Who was it? Ada"), chunk(finish="length"))
    async with asking(cut) as (asked, _):
        message = (await asked.failure(thinks_first=True)).message
        assert "went into its thoughts" in message
        assert asked.shown == []
