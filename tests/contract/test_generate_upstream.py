"""The service over model servers that misbehave: who answers, what is shown, what is counted."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.generate.app import build
from services.generate.tiers.breaker import Limits
from shared.errors import StartupError
from shared.settings import Settings
from tests.calling import WEATHER
from tests.desk import Desk
from tests.streams import streamed, text_of
from tests.upstream import (
    GOOD,
    Behaviour,
    Upstream,
    Wire,
    answers,
    dies,
    drips,
    ends_too_soon,
    errs_in_mid_stream,
    filters,
    good,
    hangs,
    hangs_after_its_headers,
    hangs_up,
    html,
    huge,
    plays_a_role,
    sends,
    stalls,
    upstream,
)
from tests.writers import WHEN, Serve, ask, chat, nowhere

QUICK = {
    "model_connect_s": 0.5,
    "model_first_token_s": 1.0,
    "model_next_token_s": 1.0,
    "model_draft_s": 2.0,
}
# Those that fail before their first token, and those that fail after it.
EARLY: dict[str, Behaviour] = {
    "hangs": hangs,
    "hangs-later": hangs_after_its_headers,
    "role-only": plays_a_role,
    "hangs-up": hangs_up,
    "html": html(),
    "binary": sends(bytes(range(256)), kind="application/octet-stream"),
    "no-json": sends(b"data: {not json\n\n"),
    "huge": huge,
    "busy": answers(429),
    "busy-for-long": answers(429, retry_after=100),
    "error-500": answers(500),
    "error-502": answers(502),
    "error-503": answers(503),
    "wrong-key": answers(401),
}
LATE: dict[str, Behaviour] = {
    "drips": drips,
    "stalls": stalls,
    "dies": dies,
    "ends-early": ends_too_soon,
    "error-event": errs_in_mid_stream,
    "filtered": filters,
}
# By the name of the model: one server is all of them.
BEHAVIOURS = {"good": good, "down": answers(500), **EARLY, **LATE}


async def as_its_model(wire: Wire) -> None:
    await BEHAVIOURS[wire.body["model"]](wire)


def policy(url: str, *names: str, **urls: str) -> str:
    """For each name a light and a strict tier, whose first model is that one and whose next one is
    good. urls: of those that have one of their own."""
    free = "price: {input: 1, output: 1}"
    models, tiers = (
        ["  quote: {tier: light-good, kind: extractive, price: {input: 0, output: 0}}"],
        [],
    )
    for name, checks in itertools.product(dict.fromkeys((*names, "good")), ("light", "strict")):
        tier, at = f"{checks}-{name}", urls.get(name.replace("-", "_"), url)
        models += [
            f"  {tier}-1: {{tier: {tier}, kind: openai, url: {at}, model: {name}, {free}}}",
            f"  {tier}-2: {{tier: {tier}, kind: openai, url: {url}/v1, model: good, {free}}}",
        ]
        tiers.append(f"  {tier}: {{models: [{tier}-1, {tier}-2], checks: {checks}}}")
    return "\n".join(
        [
            "version: 1\nclasses: [open]\ndefault_class: open\nmodels:",
            *models,
            "tiers:",
            *tiers,
            'compliance: {open: ["*"]}\nlast_resort: quote',
            "rules: [{name: all, then: {tier: light-good}}]\n",
        ]
    )


@asynccontextmanager
async def served(
    serve: Serve, folder: Path, *names: str, server: Behaviour = as_its_model, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    """The service over one server and a policy of `names`."""
    path = folder / "policy.yaml"
    async with upstream(server) as models:
        path.write_text(policy(models.url, *names, refused=nowhere()))
        async with serve(Desk(), policy_file=path, **{**QUICK, **settings}) as client:
            yield client, models


async def shown(client: httpx.AsyncClient, model: str) -> tuple[str, dict[str, Any] | None]:
    """The text of a stream, and its error event, or None where it ended well."""
    found = await streamed(client, WHEN, model=model)
    return text_of(found), next((one["error"] for one in found if "error" in one), None)


def written(text: str) -> str:
    """A text without its markers' place, which verification may move."""
    return " ".join(text.replace(" [3]", "").replace(".", "").split())


# --- who answers -------------------------------------------------------------------------------


async def test_the_next_model_answers_for_one_that_fails_before_it_has_written(
    serve: Serve, tmp_path: Path
) -> None:
    names = (*EARLY, "refused")
    async with served(serve, tmp_path, *names) as (client, _):
        tiers = [f"{checks}-{name}" for name in names for checks in ("light", "strict")]
        whole = await asyncio.gather(*(ask(client, WHEN, model=tier) for tier in tiers))
        streams = await asyncio.gather(*(shown(client, tier) for tier in tiers))
    for tier, answer in zip(tiers, whole, strict=True):
        decision = answer["refdesk"]["decision"]
        assert (decision["tier"], decision["endpoint"][-3:]) == (tier, "/v1"), tier
        assert len(answer["refdesk"]["degraded"]) >= 1
        assert any(one.startswith("endpoint_failed: ") for one in decision["reasons"])
        assert written(answer["choices"][0]["message"]["content"]) == written(GOOD)
    for tier, (text, error) in zip(tiers, streams, strict=True):
        assert (written(text), error) == (written(GOOD), None), tier


async def test_a_draft_that_fails_half_way_is_replaced_where_nobody_has_seen_it(
    serve: Serve, tmp_path: Path
) -> None:
    async with served(serve, tmp_path, *LATE) as (client, _):
        unseen = [f"{checks}-{name}" for name in LATE for checks in ("light", "strict")]
        whole = await asyncio.gather(*(ask(client, WHEN, model=tier) for tier in unseen))
        strict = [f"strict-{name}" for name in LATE]
        streams = await asyncio.gather(*(shown(client, tier) for tier in strict))
    for answer in whole:
        assert answer["refdesk"]["decision"]["endpoint"].endswith("/v1")
        assert written(answer["choices"][0]["message"]["content"]) == written(GOOD)
        assert answer["usage"]["prompt_tokens"] > 300  # the attempt that failed counts, too
    assert [(written(text), error) for text, error in streams] == [(written(GOOD), None)] * 6


async def test_nothing_is_put_behind_a_text_once_some_of_it_was_shown(
    serve: Serve, tmp_path: Path
) -> None:
    async with served(serve, tmp_path, *LATE) as (client, models):
        found = dict(
            zip(
                LATE,
                await asyncio.gather(*(shown(client, f"light-{name}") for name in LATE)),
                strict=True,
            )
        )
    for name, (text, error) in found.items():
        assert error is not None, name
        assert error["code"] in ("upstream_timeout", "bad_upstream", "content_filtered")
        assert "Ada Lovelace wrote the".startswith(text) or set(text) == {"a", " "}, name
        assert text
    assert {body["model"] for body in models.seen} == set(LATE)


async def test_where_all_fail_the_extract_answers_and_no_client_repeats_what_was_tried(
    serve: Serve, tmp_path: Path
) -> None:
    async with served(serve, tmp_path, server=answers(500)) as (client, models):
        answer = await ask(client, WHEN, model="strict-good")
        calls = chat(WHEN, model="light-good", tools=[WEATHER], tool_choice="required")
        refused = await client.post("/v1/chat/completions", json=calls)
        unknown = await client.post("/v1/chat/completions", json=chat(WHEN, model="nobody"))
    assert answer["refdesk"]["decision"]["endpoint"] == "extractive"
    assert refused.status_code == 503, refused.text
    assert refused.headers["x-should-retry"] == "false"
    assert "x-should-retry" not in unknown.headers
    assert len(models.seen) == 4


async def test_a_caller_who_leaves_in_mid_stream_lets_the_server_go_at_once(
    serve: Serve, tmp_path: Path
) -> None:
    left = asyncio.Event()

    async def endless(wire: Wire) -> None:
        await wire.head()
        try:
            while not wire.writer.is_closing():
                await wire.delta(content="word ")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async with served(serve, tmp_path, server=endless, model_draft_s=60) as (client, _):
        body = chat(WHEN, model="light-good", stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if "word" in line:
                    break
        await asyncio.wait_for(left.wait(), 30)
        ready = (await client.get("/ready")).json()
    assert ready["servers"]["light-good-1"]["door"] == "closed"


# --- the breaker -------------------------------------------------------------------------------


async def test_a_dead_server_is_soon_not_asked_and_shows_while_the_service_is_ready(
    serve: Serve, tmp_path: Path
) -> None:
    async with served(serve, tmp_path, "down") as (client, models):
        for _ in range(Limits().minimum + 2):
            answer = await ask(client, WHEN, model="strict-down")
            assert answer["refdesk"]["decision"]["endpoint"].endswith("/v1")
        response = await client.get("/ready")
        metrics = (await client.get("/metrics")).text
    asked = [body["model"] for body in models.seen]
    assert asked.count("down") == Limits().minimum
    reasons = answer["refdesk"]["decision"]["reasons"]
    assert any(reason.endswith(": model_unavailable") for reason in reasons)
    assert response.status_code == 200
    assert response.json()["servers"]["strict-down-1"] == {"door": "open", "classes": ["open"]}
    assert response.json()["servers"]["light-down-1"]["door"] == "open"  # the same server
    assert response.json()["servers"]["strict-down-2"]["door"] == "closed"
    assert 'refdesk_generate_breakers_open{model="down"} 1.0' in metrics
    tries = 'refdesk_generate_upstream_tries_total{model="down",result="failed",tier="strict-down"}'
    assert f"{tries} {Limits().minimum}.0" in metrics


async def test_a_server_that_is_back_is_asked_again_after_its_pause(
    serve: Serve, tmp_path: Path
) -> None:
    trouble = True

    async def recovers(wire: Wire) -> None:
        broken = trouble and wire.body["model"] == "dies"
        await (answers(500) if broken else good)(wire)

    async with served(serve, tmp_path, "dies", server=recovers, model_pause_s=0.1) as (
        client,
        models,
    ):
        for _ in range(Limits().minimum):
            await ask(client, WHEN, model="strict-dies")
        trouble = False
        await asyncio.sleep(0.15)
        answer = await ask(client, WHEN, model="strict-dies")
        ready = (await client.get("/ready")).json()
    assert answer["refdesk"]["decision"]["endpoint"] == models.url
    assert ready["servers"]["strict-dies-1"]["door"] == "closed"


# --- too much ----------------------------------------------------------------------------------


async def test_what_is_too_much_is_refused_at_once_with_the_way_out_and_the_rest_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def waits(wire: Wire) -> None:
        begun.release()
        await asyncio.wait_for(go_on.wait(), 30)
        await good(wire)

    async with served(
        serve,
        tmp_path,
        server=waits,
        model_first_token_s=30,
        model_draft_s=30,
        answers_at_once=1,
        answers_waiting=1,
    ) as (client, _):
        at_work = asyncio.create_task(shown(client, "strict-good"))
        await begun.acquire()
        waiting = asyncio.create_task(ask(client, WHEN, model="strict-good"))
        refused = None
        while refused is None or refused.status_code != 503:  # until the second one waits
            body = chat(WHEN, model="strict-good")
            call = client.post("/v1/chat/completions", json=body, timeout=0.2)
            refused = (await asyncio.gather(call, return_exceptions=True))[0]
            if isinstance(refused, httpx.TimeoutException):
                refused = None
        others = [await client.get(path) for path in ("/ready", "/v1/models", "/health")]
        routed = await client.post("/v1/route", json=chat(WHEN))
        go_on.set()
        text, error = await at_work
        answer = await waiting
        metrics = (await client.get("/metrics")).text
    assert refused.json()["error"]["code"] == "overloaded"
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "true")
    assert [one.status_code for one in others] == [200] * 3
    assert routed.status_code == 503  # it reads as large a body, and searches
    assert (written(text), error) == (written(GOOD), None)
    assert written(answer["choices"][0]["message"]["content"]) == written(GOOD)
    assert "refdesk_requests_at_work 0.0" in metrics


# --- a configured writer that is a server ------------------------------------------------------

CONFIGURED = """\
version: 1
classes: [open, secret]
default_class: open
models:
  own: {tier: reasoning, kind: configured, SERVED price: {input: 0, output: 0}}
  quote: {tier: reasoning, kind: extractive, price: {input: 0, output: 0}}
tiers: {reasoning: {models: [own]}}
compliance: {open: ["*"], secret: [own, quote]}
rules: [{name: all, then: {tier: reasoning}}]
last_resort: quote
"""


async def test_a_policy_that_does_not_know_its_writer_for_a_server_is_not_used(
    tmp_path: Path,
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(CONFIGURED.replace("SERVED", ""))
    settings = Settings(
        policy_file=path, data_dir=tmp_path, reasoning_url=nowhere(), reasoning_model="m"
    )
    with pytest.raises(StartupError, match=r"REFDESK_REASONING_URL.*served: true"):
        await build(settings)


async def test_a_policy_that_knows_it_is_used_and_readiness_tells_what_the_server_may_see(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(CONFIGURED.replace("SERVED", "served: true,"))
    async with serve(Desk(), policy_file=path) as client:
        ready = (await client.get("/ready")).json()
    assert ready["servers"] == {"own": {"door": "closed", "classes": ["open", "secret"]}}


async def test_readiness_tells_that_the_packaged_policy_lets_a_configured_server_see_all(
    serve: Serve,
) -> None:
    async with serve(Desk()) as client:
        ready = (await client.get("/ready")).json()
    assert ready["servers"] == {
        "reasoning-writer": {
            "door": "closed",
            "classes": ["public", "internal", "confidential", "restricted"],
        }
    }
