"""Corpora in Qdrant (services/retrieve/stores/qdrant/tables.py says what each table means)."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the five tables."""
    op.create_table(
        "qdrant_corpora",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("curate", sa.Boolean, nullable=False),
        sa.Column("recency", sa.Text),
        sa.Column("readers", sa.Text),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("live", sa.Integer),
        sa.Column("dark", sa.Integer),
        sa.Column("previous", sa.Integer),
        sa.Column("until", sa.String(40)),
        sa.Column("last", sa.Integer, nullable=False),
    )
    op.create_table(
        "qdrant_generations",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("corpus", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("collection", sa.String(255), nullable=False, unique=True),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("chunk_tokens", sa.Integer, nullable=False),
        sa.Column("chunk_overlap", sa.Integer, nullable=False),
        sa.Column("chunker", sa.Text, nullable=False),
        sa.Column("sparse", sa.Boolean, nullable=False),
        sa.Column("made_at", sa.String(40), nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("documents", "chunks", "terms", "writes", "numbers")
        ),
        sa.Column("average", sa.Float, nullable=False),
        sa.Column("average_of", sa.BigInteger, nullable=False),
        sa.Column("sealed_until", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("qdrant_generations_of_corpus", "qdrant_generations", ["corpus"])
    op.create_table(
        "qdrant_documents",
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("url", sa.Text),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("terms", "version")),
        sa.Column("updated_at", sa.String(40), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("readers", sa.Text),
        sa.Column("outline", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.UniqueConstraint("generation", "id", name="qdrant_documents_by_id"),
    )
    op.create_table(
        "qdrant_leavings",
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("dead", sa.Boolean, nullable=False),
        sa.Column("noted_at", sa.Float, nullable=False),
    )
    op.create_table(
        "qdrant_dropped",
        sa.Column("collection", sa.String(255), primary_key=True),
    )
