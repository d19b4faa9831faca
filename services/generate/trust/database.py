"""The database of generate: audit trail, escalations, states of models; SQLite or PostgreSQL."""

from pathlib import Path
from typing import Self

import sqlalchemy as sa

from shared.database.database import Database
from shared.database.purpose import Purpose
from shared.settings import Settings


class GenerateDatabase(Database):
    """An open database of generate. Several processes may share one, also a SQLite file."""

    purpose = Purpose(
        name="generate's database",
        service="generate",
        file="generate.db",
        setting="REFDESK_GENERATE_DATABASE_URL",
        migrations=Path(__file__).parent / "migrations",
        schema="generate_schema",
        lock=7_228_073_002,
        code="generate_database",
        without="the audit trail, the escalations and the states of models until now",
    )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Open the one that the settings name; see `open`."""
        return cls.open(settings.generate_database_url.get_secret_value(), settings.data_dir)


# Made once: making them anew costs more than running them.
_LOCK = sa.select(sa.func.pg_advisory_xact_lock(GenerateDatabase.purpose.lock))
_LIMITS = (
    sa.text("SET LOCAL lock_timeout = '10s'"),
    sa.text("SET LOCAL idle_in_transaction_session_timeout = '30s'"),
)


def hold_alone(connection: sa.Connection) -> None:
    """Let nobody else who calls this go on until the transaction ends."""
    if connection.dialect.name == "postgresql":  # on SQLite the transaction holds the file's lock
        # A replica that stands still with the lock must not stop all the others.
        for limit in _LIMITS:
            connection.execute(limit)
        connection.execute(_LOCK)
