"""Bringing a database's schema up to date, by Alembic, which only a change of it needs."""

import threading
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table, text

from shared.database.purpose import Purpose
from shared.errors import StartupError

# Alembic keeps what it is at in a module: one migration at a time in a process.
_migrating = threading.Lock()


def migrate(connection: Connection, purpose: Purpose, where: str) -> None:
    """Run the migrations that are missing. On SQLite the transaction holds the file's lock.

    Raises StartupError where a newer version made the schema, or the encoding is not UTF-8.
    """
    if _found(connection, purpose.schema) == [latest(purpose.migrations)]:
        return
    # Importing it takes some 0.3 s, of every start.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise StartupError(
                f"{purpose.name}'s database has the encoding {encoding}: make one with UTF8 "
                "(createdb -E UTF8 -T template0 NAME)"
            )
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": purpose.lock})
    options = {"version_table": purpose.schema}
    scripts = ScriptDirectory(purpose.migrations)
    known = {script.revision for script in scripts.walk_revisions()}
    found = MigrationContext.configure(connection, opts=options).get_current_heads()
    if not known.issuperset(found):
        raise StartupError(
            f"{purpose.name} at {where} has schema {', '.join(found)}, and this refdesk knows "
            f"schemas up to {scripts.get_current_head()}: a newer version wrote it; upgrade "
            "refdesk, or restore a backup from before"
        )
    with _migrating, EnvironmentContext(Config(), scripts) as environment:
        environment.configure(
            connection=connection,
            transactional_ddl=True,
            version_table=purpose.schema,
            fn=lambda revision, _: scripts._upgrade_revs("head", revision),
        )
        environment.run_migrations()


def latest(migrations: Path) -> str:
    """The revision of the newest schema: what the last file's name begins with, after its `r`."""
    last = max(path.name for path in (migrations / "versions").glob("r[0-9]*_*.py"))
    return last[1:].partition("_")[0]


def _found(connection: Connection, name: str) -> list[str]:
    if not inspect(connection).has_table(name):
        return []
    return list(connection.scalars(select(column("version_num")).select_from(table(name))))
