"""Why drafts were not shown: one row for each step from a tier to another, counted by week."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.generate.trust.tables import ESCALATIONS

LAST_RESORT = "last_resort"  # stands for a tier: the extractive answer, or that there is none


@dataclass(frozen=True)
class Escalation:
    """A step. reason: of the policy's closed list. checks: those that the draft failed."""

    reason: str
    tier_from: str
    tier_to: str
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Week:
    """One week's escalations. week: of ISO 8601, ``2026-W47``. reasons: how often each."""

    week: str
    reasons: dict[str, int]


def week_of(moment: datetime) -> str:
    """The ISO 8601 week of a moment, as its time zone has it: ``2026-W47``."""
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02}"


def insert(
    connection: sa.Connection,
    steps: Sequence[Escalation],
    *,
    moment: datetime,
    request_id: str,
    question: str,
    audit: int | None,
) -> None:
    """Store an answer's escalations. moment: UTC. question: its SHA-256. audit: its record."""
    if not steps:
        return
    rows = [
        {
            "at": moment.isoformat(),
            "week": week_of(moment),
            "request_id": request_id,
            "reason": step.reason,
            "tier_from": step.tier_from,
            "tier_to": step.tier_to,
            "checks": ",".join(step.checks),
            "question": question,
            "audit": audit,
        }
        for step in steps
    ]
    connection.execute(sa.insert(ESCALATIONS), rows)


def weekly(connection: sa.Connection, first: str) -> list[Week]:
    """The counts of each week that has some, from week `first` on, the newest first."""
    columns = (ESCALATIONS.c.week, ESCALATIONS.c.reason)
    query = (
        sa.select(*columns, sa.func.count())
        .where(ESCALATIONS.c.week >= first)
        .group_by(*columns)
        .order_by(ESCALATIONS.c.week.desc(), sa.func.count().desc(), ESCALATIONS.c.reason)
    )
    found: dict[str, dict[str, int]] = {}
    for week, reason, count in connection.execute(query):
        found.setdefault(week, {})[reason] = count
    return [Week(week, reasons) for week, reasons in found.items()]
