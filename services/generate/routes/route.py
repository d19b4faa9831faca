"""The decision on a question, told without an answer."""

import time

from fastapi import FastAPI, Request

from services.generate.delivery.answering import query_of
from services.generate.delivery.chat import route_answer
from services.generate.delivery.delivery import unless_gone
from services.generate.pipeline import Engine
from services.generate.protocol import ChatRequest, RouteAnswer


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add the route."""

    @app.post("/v1/route")
    async def explain_route(body: ChatRequest, request: Request) -> RouteAnswer:
        """Which tier and model would answer the last user message, and why; nobody writes."""
        started = time.perf_counter()
        prepared = await unless_gone(request, engine.prepare(await query_of(body)))
        return route_answer(prepared, (time.perf_counter() - started) * 1000)
