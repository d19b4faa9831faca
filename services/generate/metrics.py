"""What this service counts and times, and the log line of an answer.

`/metrics` asks for no key: labels are names of the policy and words of this service, never what a
writer is called by, which may be a server's address.
"""

import time
from collections.abc import Sequence

from prometheus_client import Counter, Histogram

from services.generate.answer.outcome import Attempt, Outcome
from services.generate.pipeline import Prepared
from services.generate.routing.choose import vote
from services.generate.routing.decision import Decided
from shared.telemetry import get_logger

log = get_logger(__name__)

ANSWERS = Counter(
    "refdesk_generate_answers_total", "Answers by the tier that wrote them", ["tier", "answered"]
)
FAILED_CHECKS = Counter(
    "refdesk_generate_failed_checks_total",
    "Answers whose first failed draft failed this check, shown or not",
    ["check"],
)
HOPS = Counter(
    "refdesk_generate_hops_total", "Steps from a tier to another, by their reason", ["reason"]
)
LEARNED = Counter(
    "refdesk_generate_learned_total",
    "What the learned router said of the tier that was decided",
    ["mode", "verdict"],
)
DEGRADED = Counter("refdesk_generate_degraded_total", "Answers that did without a part", ["part"])
ATTEMPTS = Counter(
    "refdesk_generate_attempts_total", "Models that were asked for a draft", ["model", "ended"]
)
COST = Counter(
    "refdesk_generate_cost_nano_dollars_total", "What all attempts cost, by model", ["model"]
)
STAGES = Histogram("refdesk_generate_stage_seconds", "Time of each stage", ["stage"])


def settle(attempts: Sequence[Attempt]) -> None:
    """Count the attempts at one answer and what they cost, whatever became of it."""
    for one in attempts:
        ATTEMPTS.labels(one.model, one.ended).inc()
        COST.labels(one.model).inc(one.cost_nano_dollars or 0)


def record(
    prepared: Prepared, outcome: Outcome, audit: str | None, audit_ms: float, started: float
) -> float:
    """Count the answer; returns the milliseconds since `started`.

    audit: its place in the audit trail, which the log line keeps outside of the database.
    """
    total = time.perf_counter() - started
    ANSWERS.labels(outcome.tier, str(outcome.answered).lower()).inc()
    for check in {failure.check for failure in outcome.failures}:
        FAILED_CHECKS.labels(check.value).inc()
    for hop in outcome.hops:
        HOPS.labels(hop.reason.value).inc()
    _count_opinion(prepared)
    writers = {one.endpoint for one in outcome.attempts}
    for part in {*prepared.degraded, *outcome.degraded}:
        DEGRADED.labels("writer" if part in writers else part).inc()
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
        cached=outcome.cached.found if outcome.cached else None,
        passages=len(prepared.passages),
        audit=audit,
        ms=round(total * 1000, 1),
    )
    return total * 1000


def _count_opinion(prepared: Prepared) -> None:
    """Whether the learned router, where the policy has one, is of the decision's opinion."""
    decision, learned = prepared.decision, prepared.policy.learned
    if learned is None or decision.rule in (Decided.REQUESTED, Decided.NO_PASSAGES):
        return
    tier = vote(prepared.features, prepared.policy)
    if prepared.features.opinion is None:
        verdict = "absent"
    elif tier is None:
        verdict = "declined"
    else:
        verdict = "agrees" if tier == decision.tier else "differs"
    LEARNED.labels(learned.mode, verdict).inc()
