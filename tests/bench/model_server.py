"""What generate stands between, as bare as can be: a desk, a librarian and a model server.

    python -m tests.bench.model_server PORT

`/retrieve` finds one passage, `/v1/embeddings` gives vectors of ones, `/v1/chat/completions` writes
a cited sentence. How it writes stands in the path: `/TOKENS/THINK_MS/GAP_MS/v1/chat/completions`
waits before the first token and between two. Where TOKENS is above 1, each token of a stream is
`t`, the time at which it was written in nanoseconds of `time.monotonic_ns`, which processes of a
machine share, and a full stop.
"""

import asyncio
import base64
import sys
import time

import numpy as np
import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

SENTENCE = "The rerank service listens on port 8002. [1]"
HIT = {
    "id": "ports.md#0",
    "document_id": "ports.md",
    "corpus": "handbook",
    "title": "Ports",
    "url": None,
    "text": "The embed service listens on port 8001. The rerank service listens on port 8002. The "
    "retrieve service listens on port 8003 and the generate service on port 8004.",
    "score": 0.9,
}
SIGNALS = {"top_score": 0.9, "margin": 0.5, "agreement": 1.0, "coverage": 1.0, "documents": 1}
RETRIEVED = orjson.dumps({"hits": [HIT], "signals": SIGNALS, "degraded": []})
VECTOR = base64.b64encode(np.full(384, 0.05, np.float32).tobytes()).decode()
USAGE = {"prompt_tokens": 200, "completion_tokens": 12, "total_tokens": 212}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["path"]
    if path.endswith("/v1/chat/completions"):
        tokens, think_ms, gap_ms = (int(part) for part in path.split("/")[1:4])
        await asyncio.sleep(think_ms / 1000)
        if orjson.loads(body).get("stream"):
            await _stream(send, tokens, gap_ms / 1000)
        else:
            choice = {"index": 0, "message": {"content": SENTENCE}, "finish_reason": "stop"}
            whole = {"model": "m", "choices": [choice], "usage": USAGE}
            await _whole(send, orjson.dumps(whole))
    elif path == "/v1/embeddings":
        texts = orjson.loads(body)["input"]
        data = [{"index": n, "embedding": VECTOR} for n in range(len(texts))]
        await _whole(send, orjson.dumps({"data": data, "model": "m"}))
    else:
        await _whole(send, RETRIEVED if path == "/retrieve" else b"{}")


async def _whole(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, tokens: int, gap_s: float) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    begun = time.monotonic()
    for number in range(tokens):
        # By the clock, not one pause after another: those would add up.
        await asyncio.sleep(max(0.0, begun + number * gap_s - time.monotonic()))
        text = f"t{time.monotonic_ns()}. " if tokens > 1 else SENTENCE
        delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        await _event(send, {"choices": [delta], "usage": None})
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    await _event(send, {"choices": [end], "usage": None})
    await _event(send, {"choices": [], "usage": USAGE})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _event(send: Send, body: dict[str, object]) -> None:
    data = b"data: " + orjson.dumps({"model": "m", **body}) + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


if __name__ == "__main__":
    uvicorn.run(answer, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
