"""The tables of generate's database. The migrations make them; a test compares the two."""

import sqlalchemy as sa

METADATA = sa.MetaData()
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# A record is never changed and never removed; triggers refuse both. See audit.py for the chain.
AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

# The last record of a chain, beside it: without that, a chain that lost its end would look whole.
HEADS = sa.Table(
    "heads",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seq", _BIG, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

# at: UTC, as in an audit record. week: of ISO 8601, such as 2026-W47. checks: names, joined by
# commas. question: the SHA-256 of its text. audit: the record's seq, null while no trail is kept.
ESCALATIONS = sa.Table(
    "escalations",
    METADATA,
    sa.Column("number", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("week", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("tier_from", sa.Text, nullable=False),
    sa.Column("tier_to", sa.Text, nullable=False),
    sa.Column("checks", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("audit", _BIG),
    sa.Index("escalations_by_week", "week", "reason"),
)

# The life of the policy's models: a row for each change of a state. at: UTC, of the first policy
# that says so; policy: its fingerprint. state_from: empty for a model that was new.
TRANSITIONS = sa.Table(
    "model_transitions",
    METADATA,
    sa.Column("number", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state_from", sa.Text, nullable=False),
    sa.Column("state_to", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Index("model_transitions_by_model", "model", "number"),
)
