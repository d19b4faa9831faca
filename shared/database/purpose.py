"""What a database is for: how it is found, and how messages speak of it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Purpose:
    """Which database of which service.

    name: as messages call it, such as ``the catalogue``. service: who has it open. file: of SQLite,
    in the data folder. setting: the variable that holds the address of a PostgreSQL.
    migrations: the folder whose `versions` has a file for each schema. schema: the table that says
    which schema there is; two purposes may share a database of PostgreSQL. lock: of its advisory
    locks, a number of its own, the same in every replica.
    code: what its error codes begin with. without: what a start without the file goes without.
    beside: what is not in it, where somebody could fear that, as the end of a sentence.
    """

    name: str
    service: str
    file: str
    setting: str
    migrations: Path
    schema: str
    lock: int
    code: str
    without: str
    beside: str = ""

    @property
    def unavailable(self) -> str:
        """The error code for a server that does not answer and a file that is gone or locked."""
        return f"{self.code}_unavailable"

    @property
    def damaged(self) -> str:
        """The error code for a file that can't be read."""
        return f"{self.code}_damaged"
