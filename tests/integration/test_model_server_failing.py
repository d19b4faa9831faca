"""A model server that fails: what is told, what is tried again, what it costs, when it is left."""

import asyncio
from collections.abc import Sequence

import pytest

from services.generate.tiers.breaker import Door, Limits
from services.generate.tiers.endpoint import Draft, Stop
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from tests.asking import QUICK, Asking, asking, event
from tests.suite import free_port
from tests.upstream import (
    GOOD,
    Behaviour,
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
)


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "tries"),
    [
        (hangs, 504, "upstream_timeout", 1),
        (hangs_after_its_headers, 504, "upstream_timeout", 1),
        (plays_a_role, 504, "upstream_timeout", 1),
        (drips, 504, "upstream_timeout", 1),
        (stalls, 504, "upstream_timeout", 1),
        (dies, 502, "bad_upstream", 1),
        (ends_too_soon, 502, "bad_upstream", 1),
        (errs_in_mid_stream, 502, "bad_upstream", 1),
        (filters, 502, "content_filtered", 1),
        (huge, 502, "bad_upstream", 1),
        (hangs_up, 502, "bad_upstream", 2),
        (html(), 502, "bad_upstream", 1),
        (sends(bytes(range(256)), kind="application/octet-stream"), 502, "bad_upstream", 1),
        (sends(b"data: {not json\n\n"), 502, "bad_upstream", 1),
        (sends(b"data: 5\n\n"), 502, "bad_upstream", 1),
        (sends(b'["what"]', kind="application/json"), 502, "bad_upstream", 1),
        (sends(b'{"choices": null}', kind="application/json"), 502, "bad_upstream", 1),
        (sends(b'{"choices": []}', kind="application/json"), 502, "bad_upstream", 1),
        (sends(b"data: [DONE]\n\n"), 502, "bad_upstream", 1),
        (sends(b"data: " + event(" ", "stop") + b"\n\n"), 502, "bad_upstream", 1),
        (answers(500), 502, "bad_upstream", 1),
        (answers(502), 503, "model_unavailable", 2),
        (answers(503), 503, "model_unavailable", 2),
        (answers(504), 503, "model_unavailable", 2),
        (answers(429), 503, "model_unavailable", 2),
        (answers(429, retry_after=3600), 503, "model_unavailable", 1),
        (answers(400), 502, "bad_upstream", 1),
        (answers(401), 502, "bad_upstream", 1),
        (answers(404), 502, "bad_upstream", 1),
        (answers(302, location="http://127.0.0.1:1/"), 502, "bad_upstream", 1),
    ],
)
async def test_a_server_that_fails_is_told_of_and_tried_again_only_where_it_may_help(
    behaviour: Behaviour, status: int, code: str, tries: int
) -> None:
    async with asking(behaviour, times=QUICK) as (asked, server):
        error = await asked.failure()
    assert (error.status, error.code) == (status, code)
    assert len(server.seen) == tries


async def test_a_refused_connection_is_tried_again_and_costs_nothing() -> None:
    asked = Asking(f"http://127.0.0.1:{free_port()}", QUICK)
    error = await asked.failure()
    await asked.endpoint.close()
    assert (error.status, error.code) == (503, "unreachable")
    assert (asked.meter.prompt_tokens, asked.meter.completion_tokens) == (0, 0)
    assert asked.resilience.budget.retry() is True  # of three one was used
    assert [asked.resilience.budget.retry() for _ in range(2)] == [True, False]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_nothing_that_a_server_says_of_its_failure_is_repeated(status: int) -> None:
    told = b'{"error": {"message": "unknown key sk-secret", "code": "sk-secret"}}'

    async def repeats_the_key(wire: Wire) -> None:
        await wire.whole(status, told)

    async with asking(repeats_the_key) as (asked, _):
        error = await asked.failure()
    assert "sk-secret" not in str(error.body())
    assert str(status) in error.message


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_prompt_that_was_turned_away_costs_nothing(status: int) -> None:
    async with asking(answers(status)) as (asked, _):
        await asked.failure()
    assert asked.meter.prompt_tokens == 0


async def test_a_draft_that_breaks_off_costs_what_was_read_and_written() -> None:
    async with asking(dies) as (asked, _):
        await asked.failure()
    assert asked.meter.prompt_tokens > 100
    assert asked.meter.completion_tokens >= 3
    assert not asked.meter.exact


async def test_what_passes_is_answered_by_the_second_try() -> None:
    async with asking(answers(503), good) as (asked, server):
        assert (await asked.draft()).text == GOOD
    assert len(server.seen) == 2
    assert asked.meter.exact
    assert "".join(asked.shown).strip() == GOOD


async def test_a_server_that_names_a_short_rest_is_asked_again_after_it() -> None:
    async with asking(answers(429, retry_after="0.2"), good) as (asked, server):
        assert (await asked.draft()).text == GOOD
    assert len(server.seen) == 2


async def test_a_server_that_wants_a_rest_is_not_asked_by_anybody_until_then() -> None:
    async with asking(answers(429, retry_after=30)) as (asked, server):
        await asked.failure()
        assert asked.door is Door.RESTING
        error = await asked.failure()
    assert (error.status, error.code) == (503, "model_unavailable")
    assert len(server.seen) == 1


async def test_an_endless_text_is_cut_and_the_server_let_go() -> None:
    async def endless(wire: Wire) -> None:
        await wire.head()
        while not wire.writer.is_closing():
            await wire.delta(content="word " * 100)

    async with asking(endless) as (asked, server):
        draft = await asked.draft()
        await asyncio.wait_for(server.left.wait(), 5)
    assert draft.finish_reason == "length"
    assert 160 * 64 < len(draft.text) < 200_000


@pytest.mark.parametrize("behaviour", [hangs, hangs_after_its_headers, plays_a_role, stalls])
async def test_a_server_is_let_go_once_nobody_waits(behaviour: Behaviour) -> None:
    asked_for, left = asyncio.Event(), asyncio.Event()

    async def watched(wire: Wire) -> None:
        asked_for.set()
        try:
            await behaviour(wire)
        finally:
            left.set()

    async with asking(watched) as (asked, _):
        task = asyncio.create_task(asked.draft())
        await asked_for.wait()
        task.cancel()
        await asyncio.wait_for(left.wait(), 5)
        assert asked.door is Door.CLOSED
    assert asked.meter.prompt_tokens > 100  # it may have read all of it


async def test_what_the_reader_raises_ends_the_draft_and_says_nothing_against_the_server() -> None:
    leak = ApiError(502, "leak", "stop")

    def refuse(_: str) -> None:
        raise leak

    async with asking(good) as (asked, server):
        for _ in range(8):
            assert await asked.failure(show=refuse) is leak
        assert asked.door is Door.CLOSED
        assert (await asked.draft()).text == GOOD
    assert len(server.seen) == 9


async def test_a_caller_in_a_hurry_says_nothing_against_the_server() -> None:
    async with asking(hangs) as (asked, _):
        for _ in range(6):
            enter(RequestContext("-", Deadline.after_ms(40), NOBODY))
            assert (await asked.failure()).code == "deadline_exceeded"
        assert asked.door is Door.CLOSED


# --- the breaker and the budget over HTTP ------------------------------------------------------


async def thinks(wire: Wire) -> None:
    await wire.head()
    await wire.delta(reasoning_content="The user asks")
    await wire.delta(finish="stop")
    await wire.done()


async def thinks_in_silence(wire: Wire) -> None:
    await wire.head()
    await wire.delta(finish="stop")
    await wire.usage({"prompt_tokens": 300, "completion_tokens": 160})
    await wire.done()


def opened_by(*behaviours: Behaviour) -> Sequence[Behaviour]:
    return [*behaviours] * Limits().minimum


@pytest.mark.parametrize(
    ("behaviour", "door"),
    [
        (answers(500), Door.OPEN),
        (dies, Door.OPEN),
        (html(), Door.OPEN),
        (answers(400), Door.CLOSED),
        (answers(404), Door.CLOSED),
        (good, Door.CLOSED),
        (thinks, Door.CLOSED),
        (thinks_in_silence, Door.CLOSED),
        (sends(b"data: " + event(" ", "length") + b"\n\n"), Door.CLOSED),
        (sends(b"data: " + event("", "stop") + b"\n\n"), Door.OPEN),
    ],
)
async def test_a_server_that_fails_often_is_not_asked_but_one_that_says_no_is(
    behaviour: Behaviour, door: Door
) -> None:
    async with asking(behaviour) as (asked, server):
        for _ in range(Limits().minimum):
            await (asked.draft() if behaviour is good else asked.failure())
        assert asked.door is door
        assert asked.endpoint.door is door
        before = len(server.seen)
        if door is Door.OPEN:
            assert (await asked.failure()).code == "model_unavailable"
            assert len(server.seen) == before


async def test_after_its_pause_one_probe_finds_out_that_a_server_is_back() -> None:
    now = 0.0
    async with asking(*opened_by(answers(500)), answers(500), good) as (asked, server):
        asked.resilience.clock = lambda: now
        for _ in range(Limits().minimum):
            await asked.failure()
        assert asked.door is Door.OPEN
        now += Limits().pause_s
        assert asked.door is Door.HALF_OPEN
        await asked.failure()  # the probe fails
        assert asked.door is Door.OPEN
        now += Limits().pause_s
        drafts = await asyncio.gather(*(asked.draft() for _ in range(5)), return_exceptions=True)
        assert asked.door is Door.CLOSED
    assert sum(isinstance(one, Draft) for one in drafts) == 1
    assert len(server.seen) == Limits().minimum + 2


async def test_retries_end_with_their_budget_however_many_drafts_fail() -> None:
    async with asking(answers(503)) as (asked, server):
        asked.resilience.limits = Limits(minimum=1000)
        for _ in range(20):
            await asked.failure()
    assert 20 < len(server.seen) <= 20 + 3 + 2


async def test_a_server_that_is_not_asked_earns_no_retries() -> None:
    async with asking(answers(500)) as (asked, server):
        for _ in range(Limits().minimum):
            await asked.failure()
        saved = 0
        while asked.resilience.budget.retry():
            saved += 1
        for _ in range(50):
            assert (await asked.failure()).code == "model_unavailable"
        assert not asked.resilience.budget.retry()
    assert (saved, len(server.seen)) == (3, Limits().minimum)


# --- tries that are stopped --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "why", "seconds", "door"),
    [
        (hangs, Stop.BEATEN, 1.0, Door.OPEN),
        (hangs, Stop.BEATEN, 0.9, Door.CLOSED),
        (hangs, Stop.LATE, 2.0, Door.OPEN),  # of five until the first token
        (hangs, Stop.LATE, 1.6, Door.CLOSED),
        (hangs, Stop.LEFT, 60.0, Door.CLOSED),
        (stalls, Stop.BEATEN, 60.0, Door.CLOSED),  # it writes
    ],
)
async def test_a_try_that_is_stopped_tells_against_a_server_that_was_long_waited_for_in_vain(
    behaviour: Behaviour, why: Stop, seconds: float, door: Door
) -> None:
    now, begun = 0.0, asyncio.Event()

    async def watched(wire: Wire) -> None:
        if behaviour is hangs:
            begun.set()
        await behaviour(wire)

    async with asking(watched) as (asked, _):
        asked.resilience.clock = lambda: now
        for _ in range(Limits().minimum):
            begun.clear()
            task = asyncio.create_task(asked.draft(stopped=lambda: why, show=lambda _: begun.set()))
            await begun.wait()
            now += seconds
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            now -= seconds
        now += seconds
        assert asked.door is door


async def test_a_probe_that_is_stopped_leaves_its_turn_to_the_next() -> None:
    now, begun = 0.0, asyncio.Event()

    async def watched(wire: Wire) -> None:
        begun.set()
        await hangs(wire)

    async with asking(*opened_by(answers(500)), watched, good) as (asked, _):
        asked.resilience.clock = lambda: now
        for _ in range(Limits().minimum):
            await asked.failure()
        now += Limits().pause_s
        probe = asyncio.create_task(asked.draft())
        await begun.wait()
        assert (await asked.failure()).code == "model_unavailable"  # the probe is at work
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert (await asked.draft()).text == GOOD
        assert asked.door is Door.CLOSED
