"""A real PostgreSQL of Debian's packages, on a free port, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.suite import free_port

PASSWORD = "open sesame!"  # of a kind that an address has to escape
_DEBIAN = Path("/usr/lib/postgresql")


def _programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@dataclass
class Postgres:
    """A server with the user `refdesk`. account: who runs it, None for who we are."""

    programs: Path
    folder: Path
    account: str | None
    port: int = field(default_factory=free_port)

    def url(self, database: str = "postgres") -> str:
        """The address of a database, as people write it."""
        address = sa.URL.create("postgresql", "refdesk", PASSWORD, "127.0.0.1", self.port, database)
        return address.render_as_string(hide_password=False)

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"d{uuid4().hex}"
        self._statement(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        return self.url(name)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off "
            f"-c unix_socket_directories='{self.folder}' -c max_connections=200"
        )
        self._run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """Stop it, without waiting for those who are connected."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            user=self.account,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (program, done.stderr, self._log())

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def _statement(self, statement: str) -> None:
        url = sa.make_url(self.url()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


def _account() -> str | None:
    """Whom to run it as: it refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of its own; skips where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package `postgresql`)")
    # Not in pytest's folders, which another user can't get into.
    folder = Path(tempfile.mkdtemp(prefix="refdesk-postgres-"))
    account = _account()
    server = Postgres(programs, folder, account)
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        if account is not None:
            for path in (folder, password):
                shutil.chown(path, account)
        server._run(
            *("initdb", "-N", "-D", "data", "-U", "refdesk", "-E", "UTF8", "--no-locale"),
            *("-A", "scram-sha-256", "--pwfile", "password"),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
