"""Jobs, their payloads and their verdicts; services/retrieve/jobs/tables.py says more."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "jobs",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("kind", "corpus", "lane", "principal", "request")
        ),
        sa.Column("idempotency_key", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("fingerprint", "state", "stage")),
        sa.Column("revision", _BIG, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("attempt", "tries", "deaths")),
        sa.Column("wait_s", sa.Float, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("beat", _BIG, nullable=False),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("payload", _BIG, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("cursor", "result", "error")),
        sa.Column("created_at", _MOMENT, nullable=False),
        *(sa.Column(name, _MOMENT) for name in ("started_at", "finished_at")),
        *(sa.Column(name, _BIG, nullable=False) for name in ("documents", "chunks", "bytes")),
        *(sa.Column(name, _BIG) for name in ("total_documents", "total_bytes")),
        *(sa.Column(name, sa.Float) for name in ("documents_per_s", "bytes_per_s", "seconds_left")),
        *(
            sa.Column(name, _BIG, nullable=False)
            for name in ("created", "replaced", "unchanged", "deleted", "failed")
        ),
        sa.UniqueConstraint("principal", "idempotency_key", name="jobs_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "number"])
    op.create_index("jobs_by_corpus", "jobs", ["corpus", "lane", "number"])
    running = sa.text("state = 'running'")
    op.create_index(
        "jobs_one_of_a_lane",
        "jobs",
        ["corpus", "lane"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
    op.create_table(
        "job_items",
        _of_a_job(),
        sa.Column("seq", _BIG, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "job_verdicts",
        _of_a_job(),
        sa.Column("seq", _BIG, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("chunks", _BIG, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("reason", sa.Text),
    )
    op.create_index("job_verdicts_by_status", "job_verdicts", ["job", "status", "seq"])


def _of_a_job() -> sa.Column[int]:
    key = sa.ForeignKey("jobs.number", ondelete="CASCADE")
    return sa.Column("job", _BIG, key, primary_key=True)
