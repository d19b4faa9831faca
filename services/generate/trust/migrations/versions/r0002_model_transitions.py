"""The life of the policy's models; services/generate/trust/tables.py says more."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "model_transitions",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("at", "model", "state_from", "state_to", "policy")
        ),
    )
    op.create_index("model_transitions_by_model", "model_transitions", ["model", "number"])
