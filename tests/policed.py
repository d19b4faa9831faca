"""The service under a policy whose models are one server: what tests of policies share."""

import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.desk import Desk
from tests.policies import POLICY_TEXT
from tests.suite import serving
from tests.writers import WHEN, Serve, chat

GOOD = "Ada Lovelace wrote the first program in 1843 [3]."
LIE = "Ada Lovelace wrote the first program in 1844 [3]."


class Models:
    """One server with several models, each of which writes its own text or fails (None)."""

    def __init__(self, **texts: str | None) -> None:
        self.texts = texts
        self.asked: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.json()
        name = body["model"]
        self.asked[name] += 1
        self.key = request.headers.get("authorization")
        text = self.texts.get(name, GOOD)
        answer: Response = JSONResponse({"error": {"message": "no"}}, 500)
        if text is not None:
            said = {"delta" if body.get("stream") else "message": {"content": text}}
            choice = {**said, "index": 0, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            whole = {"model": name, "choices": [choice], "usage": usage}
            answer = JSONResponse(whole)
            if body.get("stream"):
                events = f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n"
                answer = Response(events, media_type="text/event-stream")
        await answer(scope, receive, send)


@asynccontextmanager
async def policed(
    serve: Serve,
    folder: Path,
    models: Models,
    text: str = POLICY_TEXT,
    desk: Desk | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, Path, str]]:
    """A client of the service under a policy, the policy's file, and the models' address."""
    path = folder / "policy.yaml"
    async with serving(models) as url:
        path.write_text(text.replace("http://127.0.0.1:1", url))
        async with serve(desk or Desk(), policy_file=path, data_dir=folder, **settings) as client:
            yield client, path, url


def change(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


async def refusal(client: httpx.AsyncClient, status: int, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json=chat(WHEN, **more))
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    return error
