"""A rerank server of the outside world, on loopback, and the settings to use it."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from services.rerank.models.remote import RemoteModel
from shared.settings import RerankRemoteApi, Settings

KEY = "a-key-that-nobody-may-see"

OpenRemote = Callable[..., RemoteModel]


def remote_settings(url: str, api: RerankRemoteApi = "jina", **more: Any) -> Settings:
    return Settings(
        **more,
        rerank_backend="remote",
        rerank_remote_url=url,
        rerank_remote_api=api,
        rerank_remote_key=SecretStr(KEY),
    )


class Server:
    """Answers in turn what it is told, and then well. left: set when a caller of one that hangs
    has gone."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.json()
        headers = dict(request.headers)
        self.seen.append({**body, "path": request.url.path, "headers": headers})
        response = self.answers.pop(0) if self.answers else JSONResponse(self.good(body))
        await response(scope, receive, send)

    @staticmethod
    def good(body: dict[str, Any]) -> Any:
        """The longer a document, the better; best first."""
        texts: list[str] = body["texts"] if "texts" in body else body["documents"]
        places = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        if "texts" in body:
            return [{"index": place, "score": len(texts[place]) - 20.0} for place in places]
        return {
            "results": [
                {"index": place, "relevance_score": len(texts[place]) / 1000} for place in places
            ],
            "usage": {"total_tokens": 10},
        }
