"""The tables of jobs, as queries see them; migrations/versions/r0001_jobs.py makes them.

JSON is text, the same in both databases. Moments are UTC, for people alone: nothing is decided by
them, since a clock may go backwards.
"""

import sqlalchemy as sa

METADATA = sa.MetaData()
# SQLite counts rows only in a column of the very type INTEGER.
BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime(timezone=True)

# state: as in model.py, and `receiving` while its payload comes in; such a job is nobody's yet.
# beat: rises with every sign of life of the worker; who sees it stand still takes the job.
# tries and deaths: since the cursor last moved. wait_s: from when it is seen, until the next try.
# payload: bytes of its items, 0 once they are gone.
JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("number", BIG, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("corpus", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("revision", BIG, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("deaths", sa.Integer, nullable=False),
    sa.Column("wait_s", sa.Float, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("beat", BIG, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("payload", BIG, nullable=False),
    sa.Column("cursor", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("created_at", MOMENT, nullable=False),
    sa.Column("started_at", MOMENT),
    sa.Column("finished_at", MOMENT),
    sa.Column("documents", BIG, nullable=False),
    sa.Column("chunks", BIG, nullable=False),
    sa.Column("bytes", BIG, nullable=False),
    sa.Column("total_documents", BIG),
    sa.Column("total_bytes", BIG),
    sa.Column("documents_per_s", sa.Float),
    sa.Column("bytes_per_s", sa.Float),
    sa.Column("seconds_left", sa.Float),
    sa.Column("created", BIG, nullable=False),
    sa.Column("replaced", BIG, nullable=False),
    sa.Column("unchanged", BIG, nullable=False),
    sa.Column("deleted", BIG, nullable=False),
    sa.Column("failed", BIG, nullable=False),
    sa.UniqueConstraint("principal", "idempotency_key", name="jobs_once"),
    sa.Index("jobs_by_state", "state", "number"),
    sa.Index("jobs_by_corpus", "corpus", "lane", "number"),
    # The last word on it, whatever replicas decide at the same moment.
    sa.Index(
        "jobs_one_of_a_lane",
        "corpus",
        "lane",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
    sqlite_autoincrement=True,
)

ITEMS = sa.Table(
    "job_items",
    METADATA,
    sa.Column("job", BIG, sa.ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", BIG, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("size", BIG, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

VERDICTS = sa.Table(
    "job_verdicts",
    METADATA,
    sa.Column("job", BIG, sa.ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", BIG, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("chunks", BIG, nullable=False),
    sa.Column("code", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Index("job_verdicts_by_status", "job", "status", "seq"),
)
