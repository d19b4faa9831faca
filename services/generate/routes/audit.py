"""The head of the audit trail, for whoever keeps it elsewhere to compare later."""

import asyncio

from fastapi import FastAPI
from pydantic import BaseModel

from services.generate.routes.access import require_admin
from services.generate.trust.audit import START
from services.generate.trust.ledger import Ledger


class HeadBody(BaseModel):
    """The last record of the trail: its number, 0 where there is none yet, and its hash in hex."""

    seq: int
    hash: str


def add_routes(app: FastAPI, ledger: Ledger) -> None:
    """Add the route."""

    @app.get("/v1/audit/head")
    async def audit_head() -> HeadBody:
        """The head of the audit trail just now; `refdesk audit verify --head` compares it later."""
        require_admin("the audit trail")
        head = await asyncio.to_thread(ledger.head) or START
        return HeadBody(seq=head.seq, hash=head.hash)
