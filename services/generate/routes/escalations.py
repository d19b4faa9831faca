"""How often drafts were not shown, and why, week by week."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel

from services.generate.routes.access import require_admin
from services.generate.trust.escalations import week_of
from services.generate.trust.ledger import Ledger


class WeekBody(BaseModel):
    """A week of ISO 8601 (UTC): its name, its Monday, and how often there was each reason."""

    week: str
    begins: date
    total: int
    reasons: dict[str, int]


class EscalationsBody(BaseModel):
    """The weeks that have escalations, the newest first."""

    weeks: list[WeekBody]


def add_routes(app: FastAPI, ledger: Ledger) -> None:
    """Add the route."""

    @app.get("/v1/escalations")
    async def escalations(weeks: Annotated[int, Query(ge=1, le=520)] = 12) -> EscalationsBody:
        """The escalations of the last `weeks` weeks, the present one included, by reason."""
        require_admin("escalations")
        first = week_of(datetime.now(UTC) - timedelta(weeks=weeks - 1))
        found = await asyncio.to_thread(ledger.weekly, first)
        return EscalationsBody(
            weeks=[
                WeekBody(
                    week=one.week,
                    begins=date.fromisoformat(f"{one.week}-1"),
                    total=sum(one.reasons.values()),
                    reasons=one.reasons,
                )
                for one in found
            ]
        )
