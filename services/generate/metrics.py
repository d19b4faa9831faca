"""What this service counts and times, and the log line of an answer."""

import time

from prometheus_client import Counter, Histogram

from services.generate.answer.outcome import Outcome
from services.generate.answer.pipeline import Prepared
from services.generate.trust.audit import Head
from shared.telemetry import get_logger

log = get_logger(__name__)

ANSWERS = Counter(
    "refdesk_generate_answers_total", "Answers by who wrote them", ["endpoint", "answered"]
)
ESCALATIONS = Counter(
    "refdesk_generate_escalations_total", "Drafts that were not shown, by failed check", ["check"]
)
DEGRADED = Counter("refdesk_generate_degraded_total", "Answers that did without a part", ["part"])
STAGES = Histogram("refdesk_generate_stage_seconds", "Time of each stage", ["stage"])


def record(
    prepared: Prepared, outcome: Outcome, head: Head | None, audit_ms: float, started: float
) -> float:
    """Count the answer; returns the milliseconds since `started`.

    head: its place in the audit trail, which the log line keeps outside of the database.
    """
    total = time.perf_counter() - started
    ANSWERS.labels(outcome.endpoint, str(outcome.answered).lower()).inc()
    for check in {failure.check for failure in outcome.failures}:
        ESCALATIONS.labels(check.value).inc()
    for part in {*prepared.degraded, *outcome.degraded}:
        DEGRADED.labels(part).inc()
    stages = {
        "retrieve": prepared.retrieve_ms,
        "route": prepared.route_ms,
        "draft": outcome.draft_ms,
        "verify": outcome.verify_ms,
        "audit": audit_ms,
    }
    for stage, milliseconds in stages.items():
        STAGES.labels(stage).observe(milliseconds / 1000)
    log.info(
        "answered",
        endpoint=outcome.endpoint,
        answered=outcome.answered,
        escalated_from=outcome.escalated_from,
        passages=len(prepared.passages),
        audit=str(head) if head else None,
        ms=round(total * 1000, 1),
    )
    return total * 1000
