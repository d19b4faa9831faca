"""What the tests of generate share: a chat body, the service over a desk."""

import asyncio
import atexit
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import httpx

from services.generate.app import build
from shared.settings import Settings
from tests.suite import free_port, serving

WHEN = "When did Ada Lovelace write the first program?"
DATABASE = "generate.db"  # in the data folder
PORT = "Which port does the rerank service listen on?"

_BUILT = Path(mkdtemp(prefix="refdesk-built-"))
atexit.register(shutil.rmtree, _BUILT)

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def chat(question: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], **more}


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


def writers_over(models_dir: Path) -> Serve:
    """A function that serves the app over a desk and gives an HTTP client of it.

    Tier reasoning is a server that is not there, unless a test wants the small LLM (`llm`), which
    takes its time, or names a server. No answer is given twice, unless a test wants that.
    """

    @asynccontextmanager
    async def start(
        desk: Any, *, llm: bool = False, **settings: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        served = {} if llm else {"reasoning_url": nowhere(), "reasoning_model": "m"}
        with TemporaryDirectory() as data:
            if llm:  # its weights are made once
                (Path(data) / "built").symlink_to(_BUILT)
            async with serving(desk) as desk_url:
                given = {"retrieve_url": desk_url, "embed_url": nowhere(), "data_dir": data}
                given["answer_cache"] = "off"
                chosen = Settings(models_dir=models_dir, **{**given, **served, **settings})
                app = await build(chosen)
                async with (
                    serving(app) as url,
                    httpx.AsyncClient(base_url=url, timeout=300) as client,
                ):
                    yield client

    return start


def records(data: Path) -> list[dict[str, Any]]:
    """The bodies of the audit records in a data folder, in order."""
    with closing(sqlite3.connect(data / DATABASE)) as connection:
        rows = connection.execute("SELECT body FROM audit ORDER BY seq").fetchall()
    return [json.loads(body) for (body,) in rows]


async def record(data: Path) -> dict[str, Any]:
    """The body of the only audit record, once it is there."""
    for _ in range(1500):
        if found := records(data):
            [one] = found
            return one
        await asyncio.sleep(0.02)
    raise AssertionError("there is no record")


def heads(data: Path) -> list[str]:
    """The number and hash of each audit record, in order, as an answer tells them."""
    with closing(sqlite3.connect(data / DATABASE)) as connection:
        rows = connection.execute("SELECT seq, hash FROM audit ORDER BY seq").fetchall()
    return [f"{seq}:{hashed}" for seq, hashed in rows]


async def ask(client: httpx.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json=chat(question, **more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
