"""OpenAI's Responses API over the same answers as chat completions."""

import time
import uuid

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from services.generate.delivery.chat import Envelope
from services.generate.delivery.wire import EVENTS, Answering
from services.generate.responses.answer import ResponseBody
from services.generate.responses.request import ResponsesRequest
from services.generate.responses.translation import as_chat
from services.generate.responses.wire import ResponsesWire
from shared.errors import ApiError


def add_routes(app: FastAPI, answer: Answering) -> None:
    """Add the route. answer: to a chat, whatever the form it is given in."""

    @app.post("/v1/responses", response_model=ResponseBody, responses=EVENTS)
    async def responses(body: ResponsesRequest, request: Request) -> Response | BaseModel:
        """Answer the last user message of the input from the corpora, with checked citations."""
        asked = as_chat(body)
        envelope = Envelope(f"resp_{uuid.uuid4().hex}", int(time.time()), asked.chat.model)
        try:
            return await answer(asked.chat, ResponsesWire(envelope, body), request)
        except ApiError as error:
            raise asked.told(error) from None
