"""A small desk over HTTP: it serves a handful of real passages, or misbehaves as told."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

HANDBOOK = [
    (
        "ports.md",
        "Ports",
        "# Ports\n\nThe embed service listens on port 8001. The rerank service listens on port "
        "8002. The retrieve service listens on port 8003 and the generate service on port 8004. "
        "Without keys, every service listens on loopback only and refuses any other address.",
    ),
    (
        "durability.md",
        "Durability",
        "A write that was answered with success survives a power cut, because the database is "
        "flushed to the disk before the answer. An index that is damaged is rebuilt from the "
        "database when the service starts.",
    ),
    (
        "history.md",
        "History",
        "Ada Lovelace wrote the first program in 1843. It computed Bernoulli numbers on the "
        "Analytical Engine of Charles Babbage.",
    ),
]


@dataclass
class Desk:
    """An ASGI app. trouble: "", or what /retrieve does instead of its work. seen: its requests."""

    corpora: list[str] = field(default_factory=lambda: ["handbook"])
    trouble: str = ""
    passages: list[tuple[str, str, str]] = field(default_factory=lambda: list(HANDBOOK))
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET /corpora and POST /retrieve."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        if request.url.path == "/corpora":
            response: Response = JSONResponse({"corpora": [{"name": n} for n in self.corpora]})
        else:
            response = await self._retrieve(request)
        await response(scope, receive, send)

    async def _retrieve(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append({**body, "headers": dict(request.headers)})
        match self.trouble:
            case "500":
                return PlainTextResponse("Internal Server Error", 500)
            case "404":
                error = {
                    "message": "there is no corpus 'attic'",
                    "type": "not_found_error",
                    "param": "corpora",
                    "code": "unknown_corpus",
                }
                return JSONResponse({"error": error}, 404)
            case "rubbish":
                return JSONResponse({"hits": "many"})
            case "no json":
                return PlainTextResponse("<html>hello</html>")
            case "hang":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        hits = [
            {
                "id": f"{id_}#0",
                "document_id": id_,
                "corpus": body["corpora"][0],
                "title": title,
                "url": f"https://handbook.example/{id_}" if id_ == "ports.md" else None,
                "text": text,
                "score": round(0.9 - place / 10, 2),
                "rank": place + 1,
            }
            for place, (id_, title, text) in enumerate(self.passages)
        ][: body["top_k"]]
        signals = {
            "top_score": 0.9 if hits else 0.0,
            "margin": 0.1,
            "agreement": 0.5,
            "coverage": 1.0,
            "documents": len(hits),
        }
        return JSONResponse({"query_id": "q", "hits": hits, "signals": signals, "degraded": []})
