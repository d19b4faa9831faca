"""OpenAI's chat completions."""

import time
import uuid

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from services.generate.delivery.chat import ChatWire, Envelope
from services.generate.delivery.wire import EVENTS, Answering
from services.generate.protocol import ChatCompletion, ChatRequest


def add_routes(app: FastAPI, answer: Answering, *, source_events: bool) -> None:
    """Add the route. answer: to a chat. source_events: where a request does not say."""

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=EVENTS)
    async def chat_completions(body: ChatRequest, request: Request) -> Response | BaseModel:
        """Answer the last user message from the corpora, with checked citations."""
        envelope = Envelope(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body.model)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        wished = body.refdesk.source_events
        wire = ChatWire(envelope, include_usage, source_events if wished is None else wished)
        return await answer(body, wire, request)
