"""The database of generate: the audit trail and the escalations, SQLite or PostgreSQL."""

from pathlib import Path

from shared.database.database import Database
from shared.database.purpose import Purpose


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
        without="the audit trail and the escalations until now",
    )
