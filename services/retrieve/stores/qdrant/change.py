"""What one write changes in the catalogue, in one transaction that holds the generation's row."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.tables import DOCUMENTS, GENERATIONS, LEAVINGS
from services.retrieve.stores.state import RetiredError
from shared.errors import ApiError

_D, _G, _L = DOCUMENTS.c, GENERATIONS.c, LEAVINGS.c


@dataclass(frozen=True, slots=True)
class Staged:
    """A document whose points are written. terms: of all its chunks; was: the version before it."""

    document: NewDocument
    number: int
    terms: int


@dataclass
class Change:
    """The changes of one write. Nobody else changes this generation until the transaction ends."""

    connection: sa.Connection
    generation: int
    state: rows.State
    documents: int = 0
    chunks: int = 0
    terms: int = 0
    gone: list[tuple[int, int]] = field(default_factory=list)  # number and chunks
    analyser: str | None = None  # the generation's from now on, where it may be another one

    @classmethod
    def begin(cls, connection: sa.Connection, generation: int, name: str) -> "Change":
        """Take hold of the generation's row. Raises RetiredError where it is not to be written,
        and ApiError 404 where it is no more."""
        connection.execute(
            sa.update(GENERATIONS).where(_G.id == generation).values(writes=_G.writes)
        )
        state = rows.state(connection, generation, name)
        if not state.writable:
            raise RetiredError(f"generation {state.info.generation} of corpus {name} is retired")
        return cls(connection, generation, state)

    @property
    def sealed(self) -> bool:
        """Whether another process swaps generations just now, and nothing may be changed."""
        return self.state.sealed_until > time.time()

    def reserve(self, documents: Sequence[NewDocument]) -> int:
        """Take a number for each document, noted as staged; gives the first of them."""
        self.connection.execute(
            sa.update(GENERATIONS)
            .where(_G.id == self.generation)
            .values(numbers=_G.numbers + len(documents))
        )
        last = int(
            self.connection.scalar(sa.select(_G.numbers).where(_G.id == self.generation)) or 0
        )
        first = last - len(documents) + 1
        staged = [(first + place, len(one.chunks)) for place, one in enumerate(documents)]
        self._note(staged, dead=False)
        return first

    def add(self, staged: Sequence[Staged]) -> dict[str, int]:
        """Make documents live in the place of those with their ids, and give the versions of these.

        Raises ApiError 503 where a sweep took the write for one that died.
        """
        numbers = [one.number for one in staged]
        kept = 0
        for part in rows.parts(numbers):
            kept += self.connection.execute(
                sa.delete(LEAVINGS).where(
                    _L.generation == self.generation, _L.number.in_(part), _L.dead.is_(False)
                )
            ).rowcount
        if kept != len(numbers):
            raise ApiError(
                503,
                "store_unavailable",
                "the write took too long and was given up; nothing was changed: try again, with "
                "fewer documents at a time",
                headers={"Retry-After": "1"},
            )
        versions = {
            key: row.version
            for key, row in self.remove([one.document.id for one in staged]).items()
        }
        now = datetime.now(UTC)
        self.connection.execute(
            sa.insert(DOCUMENTS),
            [self._row(one, versions.get(one.document.id, 0) + 1, now) for one in staged],
        )
        # Terms that two analysers made must not be searched together, by this version or the other.
        alike = self.state.info.analyser == ANALYSER or not self.state.info.documents
        self.analyser = ANALYSER if alike else ""
        self.documents += len(staged)
        self.chunks += sum(len(one.document.chunks) for one in staged)
        self.terms += sum(one.terms for one in staged)
        return versions

    def remove(self, ids: Sequence[str]) -> dict[str, Any]:
        """Make documents dead; rows of those that were there, by id, with their `version`."""
        there = rows.of_ids(
            self.connection, self.generation, ids, _D.number, _D.chunks, _D.terms, _D.version
        )
        for part in rows.parts([row.number for row in there.values()]):
            self.connection.execute(
                sa.delete(DOCUMENTS).where(_D.generation == self.generation, _D.number.in_(part))
            )
        gone = [(row.number, row.chunks) for row in there.values()]
        self._note(gone, dead=True)
        self.gone += gone
        self.documents -= len(there)
        self.chunks -= sum(row.chunks for row in there.values())
        self.terms -= sum(row.terms for row in there.values())
        return there

    def finish(self, average: float | None = None) -> None:
        """Count the write. average: of a generation that had no chunk before, which fixes it."""
        values: dict[str, Any] = {
            "writes": _G.writes + 1,
            "documents": _G.documents + self.documents,
            "chunks": _G.chunks + self.chunks,
            "terms": _G.terms + self.terms,
        }
        if self.analyser is not None:
            values["analyser"] = self.analyser
        if average and not self.state.average:
            values |= {"average": average, "average_of": max(1, self.chunks)}
        self.connection.execute(
            sa.update(GENERATIONS).where(_G.id == self.generation).values(**values)
        )

    def _note(self, numbers: Iterable[tuple[int, int]], *, dead: bool) -> None:
        noted = [
            {
                "generation": self.generation,
                "number": number,
                "chunks": chunks,
                "dead": dead,
                "noted_at": time.time(),
            }
            for number, chunks in numbers
        ]
        if noted:
            self.connection.execute(sa.insert(LEAVINGS), noted)

    def _row(self, staged: Staged, version: int, now: datetime) -> dict[str, Any]:
        document = staged.document
        moment = document.updated_at or now
        return {
            "generation": self.generation,
            "number": staged.number,
            "id": document.id,
            "content_hash": document.content_hash,
            "title": document.title,
            "url": document.url,
            "format": document.format,
            "chunks": len(document.chunks),
            "terms": staged.terms,
            "version": version if document.version is None else document.version,
            "updated_at": moment.astimezone(UTC).isoformat(timespec="milliseconds"),
            "metadata": json.dumps(dict(document.metadata), ensure_ascii=False),
            "readers": rows.names_row(document.readers),
            "outline": rows.outline_row(document.outline),
            "text": document.text,
        }
