"""The catalogue's database; shared/database/database.py says how its tables are changed."""

from pathlib import Path

from shared.database.database import Database
from shared.database.faults import FULL_DISK, NOT_WRITABLE
from shared.database.purpose import Purpose

_PURPOSE = Purpose(
    name="the catalogue",
    service="retrieve",
    file="catalogue.db",
    setting="REFDESK_CATALOGUE_URL",
    migrations=Path(__file__).parent / "migrations",
    schema="alembic_version",
    lock=7_228_073_001,
    code="catalogue",
    without="jobs and their history",
    beside="; the corpora are not in it",
)
FILE = _PURPOSE.file
# What passes once somebody has seen to the server or to the disk.
PASSING_CODES = frozenset({_PURPOSE.unavailable, FULL_DISK, NOT_WRITABLE})


class CatalogueDatabase(Database):
    """The open catalogue.

    exclusive: whether no other process can use it, which a SQLite file in a data folder that this
    process holds can't.
    """

    purpose = _PURPOSE
