"""A model that judges drafts: what it is asked, and what becomes of an answer when it can't be."""

import asyncio
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from services.generate.app import build
from services.generate.verification import grounding
from shared.errors import StartupError
from shared.settings import Settings
from tests.judged import DRAFT, SHOWN, Judge, decided, judged_by
from tests.streams import streamed, text_of
from tests.writers import WHEN, Serve, ask, nowhere


async def test_a_draft_that_its_passage_entails_is_the_answer(serve: Serve, tmp_path: Path) -> None:
    judge = Judge(0.9)
    async with judged_by(judge, serve, tmp_path) as client:
        answer = await ask(client, WHEN)
    assert answer["choices"][0]["message"]["content"] == SHOWN
    assert answer["refdesk"]["degraded"] == ["similarity"]
    [[premise, hypothesis]] = judge.pairs
    assert hypothesis == DRAFT.removesuffix(" [3].") + "."
    assert "Ada Lovelace" in premise
    assert judge.keys == {"Bearer a-key"}


async def test_a_draft_that_its_passage_does_not_entail_is_not_shown(
    serve: Serve, tmp_path: Path
) -> None:
    async with judged_by(Judge(0.3), serve, tmp_path) as client:
        answer = await ask(client, WHEN)
    assert answer["choices"][0]["message"]["content"] != SHOWN
    [failure] = decided(answer)["verification"]["failures"]
    assert failure["check"] == "entailment"
    assert "by 0.30, 0.6 is asked" in failure["detail"]
    assert decided(answer)["escalated_from"].startswith("large:")


async def test_what_is_in_the_passage_word_for_word_needs_no_judge(
    serve: Serve, tmp_path: Path
) -> None:
    judge = Judge(0.0)
    async with judged_by(judge, serve, tmp_path, draft="Nobody reads this.") as client:
        answer = await ask(client, WHEN)  # the extractive answer
    assert decided(answer)["answered"] is True
    assert judge.pairs == []


FAULTS = [
    Judge(status=500),
    Judge(status=401, body={"error": "no key"}),
    Judge(body=[]),
    Judge(body={"rubbish": 1}),
    Judge(body=[[{"label": "entailment", "score": 7}]]),
    Judge(body=[[{"label": "LABEL_0", "score": 0.9}]]),
    None,
]


@pytest.mark.parametrize(
    ("judge", "required"), [*((judge, False) for judge in FAULTS), (Judge(body=[]), True)]
)
async def test_without_its_judge_a_draft_stands_or_falls_as_the_policy_says(
    judge: Judge | None, required: bool, serve: Serve, tmp_path: Path
) -> None:
    async with judged_by(judge, serve, tmp_path, required=required) as client:
        answer = await ask(client, WHEN)
    decision = decided(answer)
    assert "grounding" in answer["refdesk"]["degraded"]
    assert any(reason.startswith("grounding_left_out: ") for reason in decision["reasons"])
    assert "a-key" not in str(answer)
    shown = answer["choices"][0]["message"]["content"] == SHOWN
    assert shown is not required
    checks = [one["check"] for one in decision["verification"]["failures"]]
    assert checks == (["entailment"] if required else [])


async def test_data_of_a_class_that_the_judge_may_not_see_is_not_sent(
    serve: Serve, tmp_path: Path
) -> None:
    judge = Judge(0.9)
    async with judged_by(judge, serve, tmp_path) as client:
        answer = await ask(client, WHEN, refdesk={"data_class": "secret"})
    assert judge.pairs == []
    assert any("data of class secret" in reason for reason in decided(answer)["reasons"])
    assert "grounding" in answer["refdesk"]["degraded"]


async def test_a_judge_that_hangs_is_not_waited_for(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounding, "_PATIENCE_S", 0.1)

    class Hanging(Judge):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.3)

    async with judged_by(Hanging(), serve, tmp_path) as client:
        answer = await ask(client, WHEN)
    assert answer["choices"][0]["message"]["content"] == SHOWN
    assert "grounding_left_out: upstream_timeout" in decided(answer)["reasons"]


@pytest.mark.parametrize("buffers", [True, False])
async def test_a_profile_says_whether_a_draft_is_shown_before_it_is_judged(
    buffers: bool, serve: Serve, tmp_path: Path
) -> None:
    async with judged_by(Judge(0.3), serve, tmp_path, buffers=buffers) as client:
        found = await streamed(client, WHEN)
    assert ("written by" in text_of(found)) is not buffers
    [failure] = decided(found[-1])["verification"]["failures"]
    assert failure["check"] == "entailment"


async def test_many_claims_are_asked_in_batches(serve: Serve, tmp_path: Path) -> None:
    judge = Judge(0.9)
    draft = " ".join(DRAFT for _ in range(70))
    async with judged_by(judge, serve, tmp_path, draft=draft) as client:
        answer = await ask(client, WHEN)
    assert len(judge.pairs) == 70
    assert answer["refdesk"]["degraded"] == ["similarity"]


@pytest.mark.parametrize("url", ["ftp://x", "http://user:pass@127.0.0.1:1"])
async def test_an_address_that_is_none_stops_the_start(url: str, models_dir: Path) -> None:
    with pytest.raises(StartupError, match="the grounding server"):
        await build(Settings(grounding_url=url, models_dir=models_dir, retrieve_url=nowhere()))
