"""The service with a model that writes one draft and a model that judges it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.desk import Desk
from tests.model_server import ModelServer
from tests.suite import serving
from tests.writers import Serve

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
