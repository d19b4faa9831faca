"""How often answers were escalated, and why, week by week; and what another policy makes of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from services.generate.policy.schema import Policy
from services.generate.protocol import MadeBody
from services.generate.routes.access import require_admin
from services.generate.routes.policies import PolicyText, policy_of
from services.generate.routing.in_force import PolicyFile
from services.generate.trust import recorded
from services.generate.trust.escalations import week_of
from services.generate.trust.ledger import Ledger
from services.generate.trust.recorded import Recorded
from services.generate.trust.replay import NotReplayableError, Replayed, replay
from shared.errors import ApiError

_MOST_CASES = 1000


class WeekBody(BaseModel):
    """A week of ISO 8601 (UTC): its name, its Monday, and how often there was each reason."""

    week: str
    begins: date
    total: int
    reasons: dict[str, int]


class EscalationsBody(BaseModel):
    """The weeks that have escalations, the newest first."""

    weeks: list[WeekBody]


class ReplayRequest(BaseModel):
    """policy: YAML, as in a policy file; null for the policy that holds."""

    model_config = ConfigDict(extra="forbid")

    policy: PolicyText | None = None


class SinceRequest(ReplayRequest):
    """since: a week of ISO 8601. limit: of the cases, the newest."""

    since: Annotated[str, Field(pattern=r"^\d{4}-W\d{2}$")]
    limit: Annotated[int, Field(ge=1, le=_MOST_CASES)] = _MOST_CASES


class CaseBody(BaseModel):
    """A recorded decision, and what the policy decides now. See trust/replay.py."""

    record: int
    at: str
    request_id: str
    escalated: list[str]
    then: MadeBody
    now: MadeBody
    changed: bool
    untried: list[str]


class LeftOutBody(BaseModel):
    """A record that can't be decided again."""

    record: int
    why: str


class ReplayBody(BaseModel):
    """The cases, the newest first. policy: the fingerprint. changed: how many of them would go to
    another writer. more: whether there are older ones."""

    policy: str
    cases: list[CaseBody]
    changed: int
    left_out: list[LeftOutBody]
    more: bool


def add_routes(app: FastAPI, ledger: Ledger, policies: PolicyFile) -> None:
    """Add the routes. policies: what is replayed under, where a request brings no policy."""

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

    @app.post("/v1/escalations/replay")
    async def replay_escalations(body: SinceRequest) -> ReplayBody:
        """What a policy decides for the answers that were escalated since a week."""
        require_admin("escalations")
        policy = await policy_of(body.policy, policies)
        found = await asyncio.to_thread(recorded.escalated, ledger, body.since, body.limit + 1)
        more = len(found) > body.limit
        return await asyncio.to_thread(_replayed, found[: body.limit], policy, more=more)

    @app.post("/v1/escalations/{record}/replay")
    async def replay_record(
        record: Annotated[int, Path(ge=1, le=2**63 - 1)], body: ReplayRequest
    ) -> ReplayBody:
        """What a policy decides for one answer on record, by its number in the audit trail."""
        require_admin("escalations")
        policy = await policy_of(body.policy, policies)
        found = await asyncio.to_thread(recorded.one, ledger, record)
        if found is None:
            raise ApiError(404, "record_not_found", f"there is no audit record {record}")
        return await asyncio.to_thread(_replayed, [found], policy, more=False)


def _replayed(found: Sequence[Recorded], policy: Policy, *, more: bool) -> ReplayBody:
    """All of the records, decided again by a policy."""
    done: list[Replayed] = []
    left_out: list[LeftOutBody] = []
    for one in found:
        try:
            done.append(replay(one.seq, one.body, policy))
        except NotReplayableError as error:
            left_out.append(LeftOutBody(record=one.seq, why=str(error)))
    return ReplayBody(
        policy=policy.fingerprint,
        cases=[_case(one) for one in done],
        changed=sum(one.changed for one in done),
        left_out=left_out,
        more=more,
    )


def _case(one: Replayed) -> CaseBody:
    return CaseBody(**asdict(one), changed=one.changed)
