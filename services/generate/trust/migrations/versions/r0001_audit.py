"""The audit trail, its head and the escalations; services/generate/trust/tables.py says more."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_REFUSED = "the audit trail is only ever added to"


def upgrade() -> None:
    """Make the three tables, and keep the first from being changed by mistake."""
    op.create_table(
        "audit",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("previous", "hash", "body")),
    )
    op.create_table(
        "heads",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_table(
        "escalations",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("at", "week", "request_id", "reason")
        ),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("tier_from", "tier_to", "checks", "question")
        ),
        sa.Column("audit", _BIG),
    )
    op.create_index("escalations_by_week", "escalations", ["week", "reason"])
    _guard(op.get_bind().dialect.name)


def _guard(dialect: str) -> None:
    if dialect == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refdesk_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refdesk_audit_refuse()"
    )
