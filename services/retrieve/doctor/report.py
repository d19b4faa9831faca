"""What the doctor says: a line for each thing found, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

DOCTOR = "`refdesk doctor --rebuild` makes it anew"
RESTORE = (
    "restore the corpus from a backup, or delete it with `refdesk corpora delete` and load its "
    "documents again"
)


class Level(StrEnum):
    """damaged: something that nothing else can give back. derived: something that can be made anew
    from what is sound. note: nothing is wrong, and somebody may want to know."""

    DAMAGED = "damaged"
    DERIVED = "derived"
    NOTE = "note"


@dataclass(frozen=True)
class Told:
    """Where something was found, what, and what to do about it."""

    level: Level
    where: str
    what: str
    remedy: str

    def line(self) -> str:
        """For people."""
        return f"{self.level}: {self.where}: {self.what}; {self.remedy}"
