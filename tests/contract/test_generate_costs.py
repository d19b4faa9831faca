"""What answers cost is counted by model, whatever becomes of them."""

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.desk import Desk
from tests.policies import POLICY_TEXT
from tests.upstream import GOOD, Upstream, Wire, answers, good, upstream
from tests.writers import WHEN, Serve, ask, chat

LIE = GOOD.replace("1843", "1844")
USED = {"prompt_tokens": 500, "completion_tokens": 12}


async def lies(wire: Wire) -> None:
    await good(wire, LIE, USED)


async def is_right(wire: Wire) -> None:
    await good(wire, GOOD, USED)


def policy(folder: Path, models: Upstream) -> Path:
    """Small costs 100 and 400 for a token, large 3000 and 9000."""
    path = folder / "policy.yaml"
    text = POLICY_TEXT.replace("http://127.0.0.1:1", models.url)
    path.write_text(text.replace("{input: 0, output: 0}", "{input: 3000, output: 9000}"))
    return path


async def counted(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """The attempts by end and model, and the nano-dollars by model."""
    text = (await client.get("/metrics")).text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name
        in ("refdesk_generate_attempts_total", "refdesk_generate_cost_nano_dollars_total")
    }


def more(
    before: dict[tuple[str, ...], float], now: dict[tuple[str, ...], float]
) -> dict[tuple[str, ...], float]:
    """What was counted since; the counters are those of the whole process."""
    return {key: grown for key, one in now.items() if (grown := one - before.get(key, 0))}


async def test_each_attempt_of_an_answer_is_counted_with_what_it_cost(
    serve: Serve, tmp_path: Path
) -> None:
    async with (
        upstream(lies, answers(400), is_right) as models,
        serve(Desk(), policy_file=policy(tmp_path, models), data_dir=tmp_path) as client,
    ):
        before = await counted(client)
        answer = await ask(client, WHEN)
        found = more(before, await counted(client))
    assert answer["refdesk"]["decision"]["model"] == "big-1"
    assert found == {
        ("drafted", "small-a"): 1,
        ("small-a",): 500 * 100 + 12 * 400,
        ("failed", "large-a"): 1,
        ("drafted", "large-b"): 1,
        ("large-b",): 500 * 3000 + 12 * 9000,
    }


async def test_a_caller_who_hangs_up_pays_for_what_was_read_and_written_until_then(
    serve: Serve, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def stops(wire: Wire) -> None:
        await wire.head()
        await wire.text("Ada Lovelace")
        begun.set()
        await wire.gone()

    async with (
        upstream(stops) as models,
        serve(Desk(), policy_file=policy(tmp_path, models), data_dir=tmp_path) as client,
    ):
        before = await counted(client)
        body = chat(WHEN, model="large-a", stream=True)
        leaving = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await asyncio.wait_for(begun.wait(), 10)
        leaving.cancel()
        for _ in range(500):
            if found := more(before, await counted(client)):
                break
            await asyncio.sleep(0.02)
    assert found.keys() == {("stopped", "large-a"), ("large-a",)}
    assert found["stopped", "large-a"] == 1
    assert found[("large-a",)] > 50 * 3000  # the prompt alone has more than fifty tokens


async def longest(client: httpx.AsyncClient, model: str) -> int:
    """Nano-dollars of the model's longest draft, as routing tells them."""
    nothing = chat(WHEN, refdesk={"budget_nano_dollars": 0})
    decided = (await client.post("/v1/route", json=nothing)).json()
    [why] = [one["why"] for one in decided["ruled_out"] if one["model"] == model]
    return int(why.removeprefix("a draft may cost ").split()[0])


SPENT = 500 * 100 + 12 * 400


@pytest.mark.parametrize("short", [0, 1])
async def test_the_drafts_of_an_answer_share_its_budget(
    serve: Serve, tmp_path: Path, short: int
) -> None:
    async with (
        upstream(lies, is_right) as models,
        serve(Desk(), policy_file=policy(tmp_path, models)) as client,
    ):
        enough = SPENT + await longest(client, "large-a")
        answer = await ask(client, WHEN, refdesk={"budget_nano_dollars": enough - short})
    found = answer["refdesk"]
    asked = [one["model"] for one in found["attempts"]]
    out = [one for one in found["decision"]["ruled_out"] if one["rule"] == "budget"]
    if not short:
        assert (asked, out) == (["small-a", "large-a"], [])
        return
    assert asked == ["small-a", "quote"]
    assert found["decision"]["endpoint"] == "extractive"
    assert found["cost_nano_dollars"] == SPENT
    assert [one["model"] for one in out] == ["large-a", "large-b"]
    assert f"{SPENT} are spent" in out[0]["why"]


async def test_what_the_first_failed_draft_failed_is_counted_once_an_answer(
    serve: Serve, tmp_path: Path
) -> None:
    async def failed(client: httpx.AsyncClient) -> float:
        name = 'refdesk_generate_failed_checks_total{check="number"} '
        lines = (await client.get("/metrics")).text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    async with (
        upstream(lies) as models,
        serve(Desk(), policy_file=policy(tmp_path, models)) as client,
    ):
        before = await failed(client)
        answer = await ask(client, WHEN)  # two tiers lie
        assert [one["model"] for one in answer["refdesk"]["attempts"]] == [
            "small-a",
            "large-a",
            "quote",
        ]
        assert await failed(client) == before + 1
