"""A model server that behaves: an OpenAI-compatible app whose models write what they are told.

What real servers do to their callers besides is in `upstream`, byte by byte.
"""

import json
from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.upstream import GOOD

LIE = "Ada Lovelace wrote the first program in 1844 [3]."


class ModelServer:
    """It writes `text`, as events where a request wants them; or answers `status` and `body`.

    texts: what single models write instead, by name; None for one that fails. seen: the requests,
    with their headers.
    """

    def __init__(
        self, text: str = GOOD, status: int = 200, body: Any = None, **texts: str | None
    ) -> None:
        self.text = text
        self.status = status
        self.body = body
        self.texts = texts
        self.seen: list[dict[str, Any]] = []

    @property
    def asked(self) -> Counter[str]:
        """How often each model was asked."""
        return Counter(one["model"] for one in self.seen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = await request.json()
        self.seen.append({**asked, "headers": dict(request.headers)})
        await self._answer(asked)(scope, receive, send)

    def _answer(self, asked: dict[str, Any]) -> Response:
        text = self.texts.get(asked["model"], self.text)
        if self.body is not None:
            return JSONResponse(self.body, self.status)
        if text is None or self.status != 200:
            status = 500 if self.status == 200 else self.status
            return JSONResponse({"error": {"message": "no"}}, status)
        streamed = asked.get("stream", False)
        said = {"role": "assistant", "content": text}
        choice = {"index": 0, "delta" if streamed else "message": said, "finish_reason": "stop"}
        whole = {
            "id": "x",
            "model": asked["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }
        if not streamed:
            return JSONResponse(whole)
        events = f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n"
        return Response(events, media_type="text/event-stream")
