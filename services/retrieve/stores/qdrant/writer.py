"""How documents come and go: first their points, then, in one transaction, the documents.

1. The numbers of the new documents are taken and noted as staged.
2. Their points are written. Nobody sees them: their numbers are no live document's.
3. One transaction makes the new documents live and the old ones dead. This is the write.
4. The points of the old ones are removed.

Whatever is cut off in between, the notes tell which points nobody needs; `sweep` removes them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.base import DocumentResult, NewDocument
from services.retrieve.stores.qdrant.change import Change, Staged
from services.retrieve.stores.qdrant.points import MOST_CHUNKS, Points, keys_of, point_of
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.rows import storable
from services.retrieve.stores.qdrant.tables import LEAVINGS
from services.retrieve.stores.qdrant.words import Words, body
from shared.context import current
from shared.errors import ApiError
from shared.telemetry import get_logger

_STALE_S = 3600.0  # no write of another replica's takes that long
_POLL_S = 0.05
_SWEPT = 1000  # documents whose points are removed at a time
_L = LEAVINGS.c
_Done = TypeVar("_Done")
Terms = list[list[str]]  # of each chunk of a document

log = get_logger(__name__)


class Writer:
    """The writes of one generation; its methods are not called side by side in one process."""

    def __init__(
        self,
        database: CatalogueDatabase,
        points: Points,
        words: Words,
        generation: int,
        name: str,
        *,
        patience_s: float,
    ) -> None:
        """patience_s: how long a write waits for a seal that another process holds."""
        self._database = database
        self._points = points
        self._words = words
        self._generation = generation
        self._name = name
        self._patience_s = patience_s

    def write(self, documents: Sequence[NewDocument]) -> list[DocumentResult]:
        """Create or replace documents, distinct ids. Raises RetiredError, and what the database and
        Qdrant do; nothing is changed then."""
        documents = [_storable(document) for document in documents]
        terms = [
            [self._words.terms(body(document.title, chunk.text)) for chunk in document.chunks]
            for document in documents
        ]
        first, average = self._transact(
            lambda change: (change.reserve(documents), change.state.average)
        )
        average = average or _average(terms)
        staged = [
            Staged(document, first + place, sum(map(len, terms[place])))
            for place, document in enumerate(documents)
        ]

        def flip(change: Change) -> dict[str, int]:
            versions = change.add(staged)
            change.finish(average)
            return versions

        try:
            self._points.put(_points(staged, terms, average))
            versions = self._transact(flip)
        except Exception:
            self._give_up(staged)
            raise
        return [
            DocumentResult(one.id, "replaced" if one.id in versions else "created", len(one.chunks))
            for one in documents
        ]

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove documents; the ids of those that were there, in the order asked."""

        def remove(change: Change) -> set[str]:
            there = set(change.remove(ids))
            if there:
                change.finish()
            return there

        there = self._transact(remove)
        return [one for one in dict.fromkeys(ids) if one in there]

    def sweep(self, *, own: bool = False) -> None:
        """Remove the points of dead documents, and of writes that died: those of long ago, or all
        that are noted as under way (own), where only this process writes and none is.

        What Qdrant does not do now is left for the next time.
        """
        try:
            with self._database.begin() as connection:
                before = time.time() - (0.0 if own else _STALE_S)
                connection.execute(
                    sa.update(LEAVINGS)
                    .where(
                        _L.generation == self._generation,
                        _L.dead.is_(False),
                        _L.noted_at <= before,
                    )
                    .values(dead=True)
                )
            while dead := self._dead():
                self._points.remove([key for one in dead for key in keys_of(*one)])
                with self._database.begin() as connection:
                    connection.execute(
                        sa.delete(LEAVINGS).where(
                            _L.generation == self._generation,
                            _L.number.in_([number for number, _ in dead]),
                        )
                    )
        except ApiError as error:
            log.warning("sweep_put_off", corpus=self._name, reason=error.message)

    def _dead(self) -> list[tuple[int, int]]:
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(_L.number, _L.chunks)
                .where(_L.generation == self._generation, _L.dead.is_(True))
                .limit(_SWEPT)
            )
            return [(row.number, row.chunks) for row in found]

    def _transact(self, work: Callable[[Change], _Done]) -> _Done:
        """What `work` gives, in a transaction that waits while another process swaps generations.

        Raises ApiError 503 `store_unavailable` where that takes too long.
        """
        until = time.monotonic() + self._patience_s
        while True:
            current().deadline.check()
            with self._database.begin() as connection:
                change = Change.begin(connection, self._generation, self._name)
                if not change.sealed:
                    return work(change)
            if time.monotonic() > until:
                raise ApiError(
                    503,
                    "store_unavailable",
                    f"corpus '{self._name}' is about to get another generation; nothing was "
                    "changed: try again",
                    headers={"Retry-After": "1"},
                )
            time.sleep(_POLL_S)

    def _give_up(self, staged: Sequence[Staged]) -> None:
        """Note that a write's points are dead. It was refused already: what else goes wrong here is
        for a later sweep."""
        try:
            with self._database.begin() as connection:
                connection.execute(
                    sa.update(LEAVINGS)
                    .where(
                        _L.generation == self._generation,
                        _L.number >= staged[0].number,
                        _L.number <= staged[-1].number,
                    )
                    .values(dead=True)
                )
        except ApiError as error:
            log.warning("write_left_points", corpus=self._name, reason=error.message)


def _storable(document: NewDocument) -> NewDocument:
    """The document with texts that every database takes; what was parsed here has such."""
    return replace(
        document,
        title=document.title and storable(document.title),
        text=storable(document.text),
        chunks=[replace(chunk, text=storable(chunk.text)) for chunk in document.chunks],
    )


def _points(
    staged: Sequence[Staged], terms: Sequence[Terms], average: float
) -> Iterator[models.PointStruct]:
    for one, words in zip(staged, terms, strict=True):
        if len(one.document.chunks) > MOST_CHUNKS:
            raise ValueError(f"{one.document.id}: over {MOST_CHUNKS} chunks")
        for place, found in enumerate(words):
            yield point_of(one.document, one.number, place, found, average)


def _average(terms: Sequence[Terms]) -> float:
    lengths = [len(found) for words in terms for found in words]
    return sum(lengths) / len(lengths) if lengths else 0.0
