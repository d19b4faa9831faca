"""A real desk over a small corpus, with embed and rerank or what misbehaves in their place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI, Request, Response

from services.retrieve.app import build
from shared.settings import Settings
from tests.suite import free_port, serving

Result = TypeVar("Result")
Reply = Callable[[Request], Awaitable[Response]]

TEXTS = {
    "moon": "The Moon is 384,400 kilometres away from Earth.",
    "tides": "Tides are raised by the pull of the Moon and of the Sun.",
    "bread": "A sourdough starter is flour and water, fed daily.",
    "bees": "Worker bees dance to tell the hive where flowers are.",
    "chess": "In castling the king moves two squares towards a rook.",
}
QUERY = "How far away is the Moon?"


@asynccontextmanager
async def desk(
    folder: Path, embed: str = "", rerank: str = "", **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a desk over `folder`; a service without a URL is one that is not there."""
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = Settings(
        data_dir=folder, embed_url=embed or nobody, rerank_url=rerank or nobody, **more
    )
    async with (
        serving(await build(settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


def fill_shelf(folder: Path, embed: str) -> None:
    """Put TEXTS into the corpora `shelf` and `secret` of a data folder."""

    async def fill() -> None:
        async with desk(folder, embed=embed) as client:
            for corpus in ("shelf", "secret"):
                (await client.put(f"/corpora/{corpus}")).raise_for_status()
                documents = [{"id": key, "text": text} for key, text in TEXTS.items()]
                body = {"documents": documents}
                (await client.post(f"/corpora/{corpus}/documents", json=body)).raise_for_status()

    asyncio.run(fill())


def peer(info: dict[str, Any], reply: Reply) -> FastAPI:
    """A service that is well at /info and answers every POST by `reply`."""
    app = FastAPI()

    @app.get("/info")
    async def tell() -> dict[str, Any]:
        return info

    app.add_api_route("/{path:path}", reply, methods=["POST"])
    return app


def fixed(content: bytes, status: int = 200) -> Reply:
    """The same answer to whatever is asked."""

    async def reply(_: Request) -> Response:
        return Response(content, status)

    return reply


def with_peer(app: FastAPI, work: Callable[[str], Awaitable[Result]]) -> Result:
    """Run `work` with the URL of `app`."""

    async def main() -> Result:
        async with serving(app) as url:
            return await work(url)

    return asyncio.run(main())
