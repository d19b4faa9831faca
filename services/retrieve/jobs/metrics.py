"""What this process counts of jobs. Counted once it is written down, so that what is told twice
after a fault is counted once."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from services.retrieve.jobs.model import FINAL, JobState, Verdict

QUEUED = Gauge(
    "refdesk_jobs_queued", "Jobs that wait in the catalogue, whoever does them", ["kind"]
)
RUNNING = Gauge("refdesk_jobs_running", "Jobs that this process works on", ["kind"])
FINISHED = Counter("refdesk_jobs_finished", "Jobs that this process ended", ["kind", "outcome"])
DOCUMENTS = Counter("refdesk_job_documents", "Documents by verdict", ["kind", "verdict"])
CHUNKS = Counter("refdesk_job_chunks", "Chunks of documents by verdict", ["kind", "verdict"])


def count_verdicts(kind: str, verdicts: Iterable[Verdict]) -> None:
    """Count what a job of this kind told of documents."""
    for verdict in verdicts:
        DOCUMENTS.labels(kind, verdict.status).inc()
        CHUNKS.labels(kind, verdict.status).inc(verdict.chunks)


def count_end(kind: str, state: JobState) -> None:
    """Count a job of this kind, if that is the state of one that is over."""
    if state in FINAL:
        FINISHED.labels(kind, state).inc()
