"""The catalogue's tables for corpora in Qdrant: the truth of what is live.

A collection's points may be ahead of these rows or behind them (a write that is under way, one that
died): a point counts as long as `qdrant_documents` has its document's number, and no longer.
"""

import sqlalchemy as sa

METADATA = sa.MetaData()

# Compared by their code points in every database, as Python compares them.
_ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")

CORPORA = sa.Table(
    "qdrant_corpora",
    METADATA,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("curate", sa.Boolean, nullable=False),
    sa.Column("recency", sa.Text),  # JSON of RecencyDefault
    sa.Column("readers", sa.Text),  # JSON list
    sa.Column("created_at", sa.String(40), nullable=False),
    sa.Column("live", sa.Integer),  # ids of generations
    sa.Column("dark", sa.Integer),
    sa.Column("previous", sa.Integer),
    sa.Column("until", sa.String(40)),  # when the previous one may be forgotten
    sa.Column("last", sa.Integer, nullable=False),  # the highest number of a generation so far
)

GENERATIONS = sa.Table(
    "qdrant_generations",
    METADATA,
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
    # What made the terms of its chunks (analysis.ANALYSER); empty: several did.
    sa.Column("analyser", sa.String(64), nullable=False),
    sa.Column("made_at", sa.String(40), nullable=False),
    sa.Column("documents", sa.BigInteger, nullable=False),
    sa.Column("chunks", sa.BigInteger, nullable=False),
    sa.Column("terms", sa.BigInteger, nullable=False),  # of all chunks, with repeats
    sa.Column("writes", sa.BigInteger, nullable=False),
    sa.Column("numbers", sa.BigInteger, nullable=False),  # given to documents so far
    # Terms of a chunk that its weights take for the average, and of how many chunks it is that.
    sa.Column("average", sa.Float, nullable=False),
    sa.Column("average_of", sa.BigInteger, nullable=False),
    sa.Column("sealed_until", sa.Float, nullable=False),  # seconds since 1970; 0: not sealed
    sa.Index("qdrant_generations_of_corpus", "corpus"),
    sqlite_autoincrement=True,  # an id names a collection, and must not come again
)

# A document's text comes last in its row: reading the columns before it leaves its pages alone.
DOCUMENTS = sa.Table(
    "qdrant_documents",
    METADATA,
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", _ID, nullable=False),
    sa.Column("content_hash", sa.String(64), nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("url", sa.Text),
    sa.Column("format", sa.String(16), nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("terms", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("readers", sa.Text),
    sa.Column("outline", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.UniqueConstraint("generation", "id", name="qdrant_documents_by_id"),
)

# Numbers whose points may be there without a document: staged by a write that is under way, or
# dead, of a document that was replaced or deleted, and still to be removed.
LEAVINGS = sa.Table(
    "qdrant_leavings",
    METADATA,
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("dead", sa.Boolean, nullable=False),
    sa.Column("noted_at", sa.Float, nullable=False),  # seconds since 1970
)

# Collections that no generation needs, and that are still to be removed.
DROPPED = sa.Table(
    "qdrant_dropped",
    METADATA,
    sa.Column("collection", sa.String(255), primary_key=True),
)
