"""What made the terms of a corpus in Qdrant."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Those that are there were all made by the only analyser there was."""
    op.add_column(
        "qdrant_generations",
        sa.Column("analyser", sa.String(64), nullable=False, server_default="words-2"),
    )
