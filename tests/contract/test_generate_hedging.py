"""A second model asked beside the first that hesitates: off unless the policy says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.desk import Desk
from tests.streams import streamed, text_of
from tests.upstream import Behaviour, Upstream, Wire, answers, dies, good, hangs, upstream
from tests.writers import WHEN, Serve, ask, chat

FIRST = "Ada Lovelace wrote the first program in 1843 [3]."
SECOND = f"{FIRST} It computed Bernoulli numbers on the Analytical Engine of Charles Babbage [3]."
POLICY = """\
version: 1
classes: [open, secret]
default_class: open
models:
  first: {tier: strict, kind: openai, url: URL, model: first, price: {input: 1, output: 1}}
  second: {tier: strict, kind: openai, url: URL, model: second, price: {input: 1, output: 1}}
  one: {tier: light, kind: openai, url: URL, model: first, price: {input: 1, output: 1}}
  other: {tier: light, kind: openai, url: URL, model: second, price: {input: 1, output: 1}}
  quote: {tier: strict, kind: extractive, price: {input: 0, output: 0}}
tiers:
  strict: {models: [first, second], checks: strict, HEDGE}
  light: {models: [one, other], checks: light, HEDGE}
compliance: {open: ["*"], secret: [first, quote]}
rules: [{name: all, then: {tier: strict}}]
last_resort: quote
"""


@asynccontextmanager
async def hedging(
    serve: Serve,
    folder: Path,
    first: Behaviour,
    second: Behaviour,
    hedge: str = "hedge_ms: 60",
    first_token_s: float = 1,
) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    """The service over a server with both models."""

    async def both(wire: Wire) -> None:
        await (first if wire.body["model"] == "first" else second)(wire)

    path = folder / "policy.yaml"
    async with upstream(both) as server:
        path.write_text(POLICY.replace("URL", server.url).replace("HEDGE", hedge))
        async with serve(
            Desk(), policy_file=path, model_first_token_s=first_token_s, model_next_token_s=1
        ) as client:
            yield client, server


def asked(server: Upstream) -> list[str]:
    return [body["model"] for body in server.seen]


async def second_writes(wire: Wire) -> None:
    await good(wire, SECOND)


@pytest.mark.parametrize("tier", ["strict", "light"])
async def test_the_second_answers_for_a_first_that_hesitates_which_is_let_go_and_counted(
    serve: Serve, tmp_path: Path, tier: str
) -> None:
    left: list[str] = []

    async def hesitates(wire: Wire) -> None:
        try:
            await wire.gone()
        finally:
            left.append("first")

    async with hedging(serve, tmp_path, hesitates, second_writes) as (client, server):
        answer = await ask(client, WHEN, model=tier)
        stream = await streamed(client, WHEN, model=tier)
        doors = (await client.get("/ready")).json()["servers"]
    assert "Bernoulli" in answer["choices"][0]["message"]["content"]
    assert answer["refdesk"]["decision"]["endpoint"] == server.url
    assert "error" not in stream[-1]
    assert "Bernoulli" in text_of(stream)
    assert "endpoint_failed" not in str(answer["refdesk"]["decision"]["reasons"])
    assert any("hedged: " in one for one in answer["refdesk"]["decision"]["reasons"])
    assert answer["refdesk"]["degraded"] == ["similarity"]
    assert asked(server) == ["first", "second"] * 2
    assert left == ["first"] * 2
    assert answer["usage"]["prompt_tokens"] > 400  # 300 told by the second, the first's estimated
    assert {one["door"] for one in doors.values()} == {"closed"}


@pytest.mark.parametrize("tier", ["strict", "light"])
async def test_a_first_that_begins_before_the_second_is_the_answer_alone(
    serve: Serve, tmp_path: Path, tier: str
) -> None:
    second_is_asked = asyncio.Event()

    async def waits_for_the_second(wire: Wire) -> None:
        await asyncio.wait_for(second_is_asked.wait(), 30)
        await good(wire, FIRST)
        second_is_asked.clear()

    async def never(wire: Wire) -> None:
        second_is_asked.set()
        await wire.gone()

    async with hedging(serve, tmp_path, waits_for_the_second, never) as (client, server):
        answer = await ask(client, WHEN, model=tier)
        stream = await streamed(client, WHEN, model=tier)
    assert "Bernoulli" not in answer["choices"][0]["message"]["content"]
    assert answer["refdesk"]["decision"]["endpoint"] == server.url
    assert "error" not in stream[-1]
    assert "Bernoulli" not in text_of(stream)
    assert asked(server) == ["first", "second"] * 2


async def test_the_texts_of_two_that_write_at_once_are_never_mixed(
    serve: Serve, tmp_path: Path
) -> None:
    both_are_asked = asyncio.Event()

    async def first(wire: Wire) -> None:
        await asyncio.wait_for(both_are_asked.wait(), 30)
        await good(wire, FIRST)

    async def second(wire: Wire) -> None:
        both_are_asked.set()
        await good(wire, SECOND)

    async with hedging(serve, tmp_path, first, second, "hedge_ms: 20") as (client, _):
        texts = []
        for _ in range(8):
            both_are_asked.clear()
            texts.append(text_of(await streamed(client, WHEN, model="light")).strip())
    assert set(texts) <= {FIRST, SECOND}


@pytest.mark.parametrize(
    ("first", "second"), [(hangs, answers(400)), (hangs, dies), (answers(400), answers(400))]
)
async def test_where_both_fail_the_extract_answers(
    serve: Serve, tmp_path: Path, first: Behaviour, second: Behaviour
) -> None:
    async with hedging(serve, tmp_path, first, second) as (client, server):
        answer = await ask(client, WHEN, model="strict")
    assert answer["refdesk"]["decision"]["endpoint"] == "extractive"
    assert answer["refdesk"]["degraded"].count(server.url) == 2 - (second is dies)
    assert sorted(asked(server)) == ["first", "second"]


async def test_a_first_that_keeps_hanging_is_soon_not_asked(serve: Serve, tmp_path: Path) -> None:
    async def writes_after_a_second(wire: Wire) -> None:
        await asyncio.sleep(1)
        await good(wire, SECOND)

    async with hedging(serve, tmp_path, hangs, writes_after_a_second, first_token_s=30) as (
        client,
        server,
    ):
        await asyncio.gather(*(ask(client, WHEN, model="light") for _ in range(5)))
        doors = (await client.get("/ready")).json()["servers"]
        await ask(client, WHEN, model="light")
    assert (doors["one"]["door"], doors["other"]["door"]) == ("open", "closed")
    assert asked(server).count("first") == 5


async def test_no_second_model_is_asked_unless_the_policy_says_so_and_lets_it_see_the_data(
    serve: Serve, tmp_path: Path
) -> None:
    async def takes_its_time(wire: Wire) -> None:
        await asyncio.sleep(0.15)
        await good(wire, FIRST)

    async with hedging(serve, tmp_path, takes_its_time, second_writes, "") as (client, server):
        await ask(client, WHEN, model="strict")
        assert asked(server) == ["first"]
    async with hedging(serve, tmp_path, takes_its_time, second_writes) as (client, server):
        await ask(client, WHEN, model="strict", refdesk={"data_class": "secret"})
        assert asked(server) == ["first"]


async def test_a_caller_who_leaves_lets_both_go(serve: Serve, tmp_path: Path) -> None:
    left = asyncio.Semaphore(0)
    asked_both = asyncio.Event()

    async def waits(wire: Wire) -> None:
        if wire.body["model"] == "second":
            asked_both.set()
        try:
            await wire.gone()
        finally:
            left.release()

    async with hedging(serve, tmp_path, waits, waits) as (client, _):
        body = chat(WHEN, model="light", stream=True)
        call = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await asyncio.wait_for(asked_both.wait(), 30)
        call.cancel()
        for _ in range(2):
            await asyncio.wait_for(left.acquire(), 30)


@pytest.mark.parametrize(("short", "models"), [(0, ["first", "second"]), (1, ["first"])])
async def test_a_second_is_asked_where_the_budget_has_room_for_two_of_the_longest_drafts(
    serve: Serve, tmp_path: Path, short: int, models: list[str]
) -> None:
    async def takes_its_time(wire: Wire) -> None:
        await asyncio.sleep(0.15)
        await good(wire, FIRST)

    async with hedging(serve, tmp_path, takes_its_time, second_writes) as (client, server):
        nothing = chat(WHEN, refdesk={"budget_nano_dollars": 0})
        out = (await client.post("/v1/route", json=nothing)).json()["ruled_out"]
        longest = int(out[0]["why"].removeprefix("a draft may cost ").split()[0])
        budget = {"budget_nano_dollars": 2 * longest - short}
        answer = await ask(client, WHEN, model="strict", refdesk=budget)
    assert asked(server) == models
    out = answer["refdesk"]["decision"]["ruled_out"]
    assert [(one["model"], one["rule"]) for one in out] == [("second", "budget")] * short
