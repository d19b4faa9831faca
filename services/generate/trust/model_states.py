"""The states that the policy's models were last in, whatever process or file said so."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from services.generate.policy.lifecycle import Transition, illegal, transitions
from services.generate.policy.lint import Finding
from services.generate.policy.models import State
from services.generate.policy.schema import Policy
from services.generate.trust.database import GenerateDatabase, hold_alone
from services.generate.trust.tables import TRANSITIONS
from shared.telemetry import get_logger

log = get_logger(__name__)

_T = TRANSITIONS.c
_LATEST = sa.select(sa.func.max(_T.number)).group_by(_T.model)
_LAST = sa.select(_T.model, _T.state_to, _T.at).where(_T.number.in_(_LATEST))


@dataclass(frozen=True)
class Change:
    """A transition that took place. at: UTC. policy: the fingerprint of the first that says so."""

    transition: Transition
    at: datetime
    policy: str


class ModelStates:
    """The models' states in generate's database, which stays its opener's to close.

    Safe to use from several threads and processes.
    """

    def __init__(self, database: GenerateDatabase) -> None:
        self._database = database

    def admit(self, policy: Policy) -> list[Finding]:
        """What keeps a policy from following the last one; where nothing does, keep its states.

        Raises ApiError where the database can't be used.
        """
        with self._database.begin() as connection:
            hold_alone(connection)  # two replicas may read the same new file at once
            known = {name: State(state) for name, state, _ in connection.execute(_LAST)}
            changes = transitions(known, policy)
            if found := illegal(changes):
                return found
            _insert(connection, changes, policy.fingerprint)
        for change in changes:
            log.info("model_state_changed", model=change.model, change=str(change))
        return []

    def since(self) -> dict[str, datetime]:
        """When each model came into its present state, UTC. Raises ApiError."""
        with self._database.read() as connection:
            rows = connection.execute(_LAST)
            return {name: datetime.fromisoformat(at) for name, _, at in rows}

    def history(self, model: str | None, limit: int) -> list[Change]:
        """The last changes, of one model or of all, the newest first. Raises ApiError."""
        query = sa.select(_T.model, _T.state_from, _T.state_to, _T.at, _T.policy)
        if model is not None:
            query = query.where(_T.model == model)
        query = query.order_by(_T.number.desc()).limit(limit)
        with self._database.read() as connection:
            return [
                Change(
                    Transition(name, State(before) if before else None, State(after)),
                    datetime.fromisoformat(at),
                    policy,
                )
                for name, before, after, at, policy in connection.execute(query)
            ]


def _insert(connection: sa.Connection, changes: Sequence[Transition], policy: str) -> None:
    if not changes:
        return
    now = datetime.now(UTC).isoformat()
    rows = [
        {
            "at": now,
            "model": one.model,
            "state_from": one.before or "",
            "state_to": one.after,
            "policy": policy,
        }
        for one in changes
    ]
    connection.execute(sa.insert(TRANSITIONS), rows)
