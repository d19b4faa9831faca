"""Reading recorded answers back: to replay a decision, and to know how tiers did lately."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from services.generate.routing.history import History, Verified
from services.generate.routing.kept import restored
from services.generate.trust.ledger import Ledger
from services.generate.trust.tables import AUDIT, ESCALATIONS
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

_REMEMBERED = 2000  # the last records that a service begins its history with


@dataclass(frozen=True)
class Recorded:
    """An audit record. body: None where it is damaged, which `refdesk audit verify` tells."""

    seq: int
    body: Mapping[str, Any] | None


def one(ledger: Ledger, seq: int) -> Recorded | None:
    """An audit record; None where there is none of this number. Raises ApiError."""
    return next(iter(_read(ledger, _newest().where(AUDIT.c.seq == seq))), None)


def escalated(ledger: Ledger, week: str, limit: int) -> list[Recorded]:
    """The records of escalated answers since a week, the newest first, at most `limit` of them.

    Raises ApiError.
    """
    numbers = sa.select(ESCALATIONS.c.audit).where(ESCALATIONS.c.week >= week)
    return _read(ledger, _newest().where(AUDIT.c.seq.in_(numbers)).limit(limit))


def remember(ledger: Ledger, history: History) -> None:
    """Tell a history of the last answers on record, the oldest first.

    Without them it begins anew: what is wrong with the trail is no reason not to start.
    """
    try:
        found = _read(ledger, _newest().limit(_REMEMBERED))
    except ApiError as error:
        log.warning("history_not_read", code=error.code, reason=error.message)
        return
    for record in reversed(found):
        if record.body is not None:
            _note(record.body, history)


def _newest() -> sa.Select[Any]:
    return sa.select(AUDIT.c.seq, AUDIT.c.body).order_by(AUDIT.c.seq.desc())


def _read(ledger: Ledger, query: sa.Select[Any]) -> list[Recorded]:
    with ledger.read() as connection:
        if connection.dialect.name == "sqlite":
            # A damaged byte may leave no UTF-8, which must not keep the others from being read.
            query = query.with_only_columns(AUDIT.c.seq, sa.cast(AUDIT.c.body, sa.LargeBinary))
        return [Recorded(seq, _parsed(body)) for seq, body in connection.execute(query)]


def _parsed(body: str | bytes) -> Mapping[str, Any] | None:
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _note(record: Mapping[str, Any], history: History) -> None:
    try:
        drafts: Iterable[Verified] = [Verified(**one) for one in record["verified"]]
        question = restored(record["features"], "").question
    except (KeyError, TypeError, ValueError):
        return  # of an answer that did not get so far, or of an older version
    history.note((question.intent, question.asks_for), drafts)
