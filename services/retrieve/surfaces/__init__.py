"""The desk in the words of others: the search APIs that agents and frontends already speak."""

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.middleware import Middleware

from services.retrieve.desk import Desk
from services.retrieve.surfaces import bedrock, dify, mcp, openai
from services.retrieve.surfaces.degraded import SayDegraded
from shared.envelope import ErrorShape

ERROR_SHAPES: Mapping[str, ErrorShape] = bedrock.ERROR_SHAPES | dify.ERROR_SHAPES | mcp.ERROR_SHAPES


def add_routes(app: FastAPI, desk: Desk) -> None:
    """Add the routes of all surfaces."""
    # Inside the envelope, which stays the outermost.
    app.user_middleware.append(Middleware(SayDegraded))
    openai.add_openai_routes(app, desk)
    bedrock.add_bedrock_routes(app, desk)
    dify.add_dify_routes(app, desk)
    mcp.add_mcp_routes(app, desk)
