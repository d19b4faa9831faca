"""A service's database: a SQLite file of this machine, or a PostgreSQL that replicas share.

One code path for both, through SQLAlchemy Core: whoever has tables in one defines them as
`sqlalchemy.Table`, works with them in `begin` and `read`, and makes them in a migration.

To add a table or a column: put a file beside the others in the folder `versions` of the purpose's
migrations, named for its number (`r0002_generations.py`), with `revision = "0002"`,
`down_revision = "0001"` (the last one before it) and a function `upgrade()` that changes the schema
with `alembic.op`. A migration that was released is never changed. There are no downgrades: what
went wrong is undone by a restored backup. A test holds the tables to what the migrations make.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from shared.database.faults import failed, first_line, gone
from shared.database.migrate import migrate
from shared.database.purpose import Purpose
from shared.errors import ApiError, StartupError

_BUSY_S = 30  # that a transaction waits for another one's lock of a SQLite file
_CONNECT_S = 5
_DEFERRED = "refdesk_deferred"  # an option of a connection: it will only read


class Database:
    """An open database with the schema that this version knows. Safe to use from many threads.

    A service has a class of its own, which says what it is for.
    exclusive: whether it is a SQLite file: of a data folder that one process holds, it is that
    process's alone.
    """

    purpose: ClassVar[Purpose]

    def __init__(self, engine: Engine) -> None:
        """Use `open`."""
        self._engine = engine
        self.exclusive = engine.dialect.name == "sqlite"
        self._file: tuple[int, int] | None = None

    @classmethod
    def open(cls, url: str, folder: Path) -> Self:
        """Open the database and bring its schema up to date, also where others do it just now.

        url: `postgresql://user:password@host/database`; empty is the purpose's file in `folder`.
        Raises StartupError where it can't be reached or used, or is of a newer version.
        """
        purpose = cls.purpose
        address = _address(url, folder, purpose)
        database = cls(_engine(address, purpose))
        try:
            with database.begin() as connection:
                migrate(connection, purpose, _shown(address))
            database._file = _file_of(address)
        except ApiError as error:
            database.close()
            raise StartupError(f"{purpose.name} can't be used: {error.message}") from None
        except SQLAlchemyError as error:
            database.close()
            raise StartupError(
                f"{purpose.name} at {_shown(address)} can't be used ({first_line(error)}): check "
                f"{purpose.setting}, and that its user may create tables there"
            ) from None
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open_to_read(cls, url: str, folder: Path) -> Self:
        """Open a database that is there, whatever schema it has, and write nothing to it.

        For `read` alone. Raises StartupError where there is none, or none of this purpose.
        """
        purpose = cls.purpose
        address = _address(url, folder, purpose, make=False)
        if address.drivername == "sqlite" and _file_of(address) is None:
            raise StartupError(f"{address.database} is not there")
        database = cls(_engine(address, purpose, read_only=True))
        database._file = _file_of(address)
        try:
            with database.read() as connection:
                made = inspect(connection).has_table(purpose.schema)
        except (ApiError, SQLAlchemyError) as error:
            database.close()
            said = error.message if isinstance(error, ApiError) else first_line(error)
            raise StartupError(f"{_shown(address)} can't be read: {said}") from None
        if not made:
            database.close()
            raise StartupError(f"{_shown(address)} is not {purpose.name}")
        return database

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write; durable once the block has ended, undone where it raises.

        On SQLite one at a time: keep it short, and wait for nobody in it.
        Raises ApiError: 503 `…_unavailable` where the server does not answer or the file is gone,
        507 `storage_full`, 500 `…_damaged`. IntegrityError comes as it is.
        """
        with self._transaction(deferred=False) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, beside any that writes. Raises as `begin`."""
        with self._transaction(deferred=True) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, deferred: bool) -> Iterator[Connection]:
        # What is written to a file without a name is lost with the process, and a connection that
        # is opened now would make a new one.
        if self._file is not None and self._file != _file_of(self._engine.url):
            raise gone(_shown(self._engine.url), self.purpose)
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(**{_DEFERRED: deferred})
                with connection.begin():
                    yield connection
        except IntegrityError:
            raise
        except (DBAPIError, SQLAlchemyError) as error:
            told = failed(error, _shown(self._engine.url), self.purpose)
            if told is None:
                raise
            raise told from None


def _address(url: str, folder: Path, purpose: Purpose, *, make: bool = True) -> URL:
    if not url:
        try:
            if make:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"the data folder {folder} can't be used ({error.strerror}): "
                "set REFDESK_DATA_DIR to a folder that this user may write"
            ) from None
        return URL.create("sqlite", database=str(folder / purpose.file))
    try:
        address = make_url(url)
        name = address.get_backend_name()
    except (ArgumentError, ValueError):  # its words may hold the password
        name = ""
    if name not in ("postgresql", "postgres"):
        raise StartupError(
            f"{purpose.setting} is not the address of a PostgreSQL database, such as "
            "postgresql://user:password@host/database; leave it empty for a file in the data folder"
        )
    return address.set(drivername="postgresql+psycopg")


def _engine(address: URL, purpose: Purpose, *, read_only: bool = False) -> Engine:
    # Without hide_parameters an error would show what was to be written: people's documents.
    if address.drivername == "sqlite":
        given: dict[str, Any] = {"timeout": _BUSY_S, "check_same_thread": False}
        if read_only:
            file = f"{Path(str(address.database)).absolute().as_uri()}?mode=ro"
            engine = create_engine(
                address,
                hide_parameters=True,
                creator=lambda: sqlite3.connect(file, uri=True, isolation_level=None, **given),
            )
        else:
            engine = create_engine(address, hide_parameters=True, connect_args=given)
            event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            address,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=15,
            pool_timeout=_BUSY_S,
            connect_args={
                "connect_timeout": _CONNECT_S,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,
                "application_name": "refdesk",
                # Prepared statements live in a connection, which a pooler gives to others.
                "prepare_threshold": None,
            },
        )
    except ImportError:
        raise StartupError(
            f"{purpose.setting} needs the driver of PostgreSQL: "
            "in refdesk's folder, pip install -e '.[postgres]'"
        ) from None


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Transactions are begun below, not by the driver, which would not have them hold a schema.
    connection.isolation_level = None
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "journal_size_limit = 67108864",
    ):
        _set(connection, setting)


def _set(connection: Any, setting: str) -> None:
    """Unlike other statements, the one that makes it WAL does not wait for who does so just now."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute(f"PRAGMA {setting}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # One that began by reading could not go on to write where another wrote meanwhile.
    deferred = connection.get_execution_options().get(_DEFERRED)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _file_of(address: URL) -> tuple[int, int] | None:
    """Which file is at a SQLite address just now; None where there is none."""
    if address.drivername != "sqlite":
        return None
    try:
        found = Path(str(address.database)).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _shown(address: URL) -> str:
    """An address without its password."""
    if address.drivername == "sqlite":
        return str(address.database)
    return f"{address.host or 'localhost'}:{address.port or 5432}/{address.database}"
