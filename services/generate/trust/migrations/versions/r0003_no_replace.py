"""On SQLite an `INSERT OR REPLACE` removes a record without the trigger against deleting."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Refuse a record whose number is taken; PostgreSQL does so already."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "
            "WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) "
            "BEGIN SELECT RAISE(ABORT, 'the audit trail is only ever added to'); END"
        )
