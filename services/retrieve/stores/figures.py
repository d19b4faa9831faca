"""What a corpus is made of, in numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from services.retrieve.stores.base import DocumentSummary

LONGEST = 10


@dataclass(frozen=True)
class Figures:
    """tokens: of all chunks. formats: how many documents of each. last_write: when a document was
    last written, None where there is none. longest: the documents with the most chunks, the longest
    first. bytes: on the disk, by kind of file. What an engine can't count is None."""

    tokens: int | None
    formats: Mapping[str, int] | None
    last_write: datetime | None
    longest: Sequence[DocumentSummary]
    bytes: Mapping[str, int] | None


@runtime_checkable
class Counted(Protocol):
    """A store that counts for itself."""

    def figures(self) -> Figures:
        """The figures of now; takes longer the larger the corpus is."""
        ...
