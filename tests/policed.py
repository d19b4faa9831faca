"""The service under a policy whose models are one server: what tests of policies share."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.desk import Desk
from tests.model_server import ModelServer
from tests.policies import POLICY_TEXT
from tests.suite import serving
from tests.writers import WHEN, Serve, chat


@asynccontextmanager
async def policed(
    serve: Serve,
    folder: Path,
    models: ModelServer,
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
