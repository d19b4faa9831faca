"""Records that are read back: by number, the escalated ones of a week, and the last ones."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.generate.routing.history import History, kind_of
from services.generate.routing.kept import kept
from services.generate.trust import recorded
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.escalations import Escalation
from services.generate.trust.ledger import Entry, Ledger
from tests.policies import seen

FEATURES = seen("When was it signed?", 0.9)
STEP = Escalation("validator_failed", "small", "large", ("number",))


def entry(name: str, week: int, *steps: Escalation, **body: Any) -> Entry:
    at = datetime.fromisocalendar(2026, week, 1).replace(tzinfo=UTC)
    return Entry(at, name, "q", {"request_id": name, **body}, steps)


def test_records_are_found_by_number_and_escalated_ones_by_week(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = GenerateDatabase.open(catalogue_url, tmp_path)
    ledger = Ledger(database, audit=True)
    for one in (
        entry("old", 40, STEP),
        entry("plain", 41),
        entry("twice", 41, STEP, STEP),
        entry("new", 42, STEP),
    ):
        ledger.submit(one).result(30)
    found = recorded.one(ledger, 2)
    assert found is not None
    assert found.body == {"request_id": "plain"}
    assert recorded.one(ledger, 5) is None
    assert [one.seq for one in recorded.escalated(ledger, "2026-W41", 10)] == [4, 3]
    assert [one.seq for one in recorded.escalated(ledger, "2026-W01", 2)] == [4, 3]
    ledger.close()
    database.close()


def test_a_history_begins_with_what_is_on_record(catalogue_url: str, tmp_path: Path) -> None:
    database = GenerateDatabase.open(catalogue_url, tmp_path)
    ledger = Ledger(database, audit=True)
    failed = {"features": kept(FEATURES), "verified": [{"tier": "small", "passed": False}] * 20}
    for one in (
        entry("a", 40, **failed),
        entry("older version", 40),
        entry("other shape", 40, features={}, verified=[{"who": "small"}]),
    ):
        ledger.submit(one).result(30)
    history = History()
    recorded.remember(ledger, history)
    ledger.close()
    database.close()
    assert history.success(kind_of(FEATURES.question))["small"] < 0.2
