"""The state of documents, as one generation of a corpus is held against another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

INDEX_REBUILDING = "index_rebuilding"  # the code of that error


@dataclass(frozen=True, slots=True)
class Revision:
    """The state of a document.

    A copy has the content hash, the version and the time (ISO 8601, UTC, milliseconds) of what it
    was copied from, in whatever generation or engine.
    """

    id: str
    content_hash: str
    version: int
    updated_at: str


@dataclass(frozen=True)
class Finding:
    """Something that `CorpusStore.verify` found wrong: where (a file, a document, a chunk) and
    what. derived: whether it is in what follows from the documents, and can be made anew."""

    where: str
    what: str
    derived: bool = False


@runtime_checkable
class Rebuilt(Protocol):
    """A store that may have to build an index anew, and be searched without it meanwhile: what
    needs it raises ApiError 503 `index_rebuilding`."""

    @property
    def rebuilding(self) -> Mapping[str, float]:
        """The arms that have to wait, and how much of what they wait for is there, 0.0 to 1.0."""
        ...


def rebuilding(store: object) -> dict[str, float]:
    """The arms of a store that have to wait; see `Rebuilt`."""
    return dict(store.rebuilding) if isinstance(store, Rebuilt) else {}


class RetiredError(Exception):
    """This generation of a corpus is no longer the live one: write to that one."""
