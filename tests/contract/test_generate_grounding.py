"""A model that judges drafts: what it is asked, and what becomes of an answer when it can't be."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from services.generate.app import build
from services.generate.verification import grounding
from shared.errors import StartupError
from shared.settings import Settings
from tests.desk import Desk
from tests.suite import serving
from tests.writers import WHEN, ModelServer, Serve, ask, chat, nowhere

DRAFT = "The first program was written by Ada Lovelace in 1843 [3]."
SHOWN = "The first program was written by Ada Lovelace in 1843. [3]"
POLICY = """\
version: 1
classes: [open, secret]
default_class: open
models:
  big: {{tier: large, kind: openai, url: "{url}", model: m, price: {{input: 0, output: 0}}}}
  quote: {{tier: large, kind: extractive, price: {{input: 0, output: 0}}}}
tiers: {{large: {{models: [big]}}}}
compliance: {{open: ["*"], secret: ["*"]}}
rules: [{{name: all, then: {{tier: large}}}}]
checks: judged
profiles: {{judged: {{checks: {checks}, buffers: {buffers}}}}}
grounding: {{classes: [open], bar: 0.6, required: {required}}}
last_resort: quote
"""


class Judge:
    """A server of TEI's `/predict` that gives each pair the same score, or answers as told."""

    def __init__(self, score: float = 0.9, status: int = 200, body: Any = None) -> None:
        self.score = score
        self.status = status
        self.body = body
        self.pairs: list[list[str]] = []
        self.keys: set[str | None] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.json()
        assert request.url.path == "/predict"
        assert body["truncate"] is True
        self.pairs += body["inputs"]
        self.keys.add(request.headers.get("authorization"))
        scores = [
            {"score": self.score, "label": "ENTAILMENT"},
            {"score": 1 - self.score, "label": "NEUTRAL"},
        ]
        answer = [scores for _ in body["inputs"]] if self.body is None else self.body
        response: Response = JSONResponse(answer, self.status)
        await response(scope, receive, send)


@asynccontextmanager
async def judged_by(
    judge: Judge | None,
    serve: Serve,
    folder: Path,
    *,
    draft: str = DRAFT,
    required: bool = False,
    buffers: bool = True,
    checks: str = "[citation, number, date, entailment]",
    **settings: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """The service with one model that writes the draft, and a judge at its side; None: none."""
    async with serving(ModelServer(draft)) as url, serving(judge or Judge()) as judging:
        path = folder / "policy.yaml"
        text = POLICY.format(
            url=f"{url}/v1",
            required=str(required).lower(),
            buffers=str(buffers).lower(),
            checks=checks,
        )
        path.write_text(text, "utf-8")
        where = judging if judge else ""
        given = {"policy_file": path, "grounding_url": where, "grounding_key": "a-key"}
        async with serve(Desk(), **given, **settings) as client:
            yield client


def decided(answer: dict[str, Any]) -> dict[str, Any]:
    decision: dict[str, Any] = answer["refdesk"]["decision"]
    return decision


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
    asked = chat(WHEN, stream=True)
    async with judged_by(Judge(0.3), serve, tmp_path, buffers=buffers) as client:
        response = await client.post("/v1/chat/completions", json=asked)
    lines = response.text.split("data: ")[1:-1]
    events = [json.loads(line) for line in lines]
    deltas = [one["delta"].get("content", "") for event in events for one in event["choices"]]
    assert ("written by" in "".join(deltas)) is not buffers
    [failure] = decided(events[-1])["verification"]["failures"]
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
