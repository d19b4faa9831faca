"""The collections of generations, and the aliases of the live ones: how they come and go.

What is to be removed is noted in the catalogue, with the transaction that makes it useless, and
removed after it: what Qdrant does not do now is done when the engine is opened next.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.tables import (
    CORPORA,
    DOCUMENTS,
    DROPPED,
    GENERATIONS,
    LEAVINGS,
)
from shared.errors import ApiError
from shared.telemetry import get_logger

_C, _G = CORPORA.c, GENERATIONS.c
_STALE = timedelta(days=1)  # no other replica takes that long to make a generation

log = get_logger(__name__)


class Collections:
    """Those that one engine's corpora have."""

    def __init__(self, database: CatalogueDatabase, link: Link) -> None:
        self._database = database
        self._link = link

    def prepare(self, cut: Cut) -> int:
        """The id of a new, empty generation with its collection; noted as not needed until `keep`
        says otherwise."""
        spec, stamp = cut.spec, cut.stamp
        with self._database.begin() as connection:
            generation = connection.execute(
                sa.insert(GENERATIONS).values(
                    corpus=spec.name,
                    number=0,
                    collection=f"new:{spec.name}:{now_text()}",
                    language=spec.language,
                    model=stamp.model,
                    revision=stamp.revision,
                    dimension=stamp.dimension,
                    chunk_tokens=spec.chunk_tokens,
                    chunk_overlap=spec.chunk_overlap,
                    chunker=cut.chunker,
                    sparse=cut.sparse,
                    analyser=ANALYSER,
                    made_at=now_text(),
                    documents=0,
                    chunks=0,
                    terms=0,
                    writes=0,
                    numbers=0,
                    average=0.0,
                    average_of=0,
                    sealed_until=0.0,
                )
            ).inserted_primary_key
            if generation is None:
                raise RuntimeError("the catalogue gave no id")
            found = int(generation[0])
            # Never a name that was there: neither of one that is still on its way out, nor of one
            # that another catalogue has in the same Qdrant, which would be filled, and removed.
            name = f"{self._link.layout.prefix}_{spec.name}_g{found}"
            collection = f"{name}_{secrets.token_hex(4)}"
            connection.execute(
                sa.update(GENERATIONS).where(_G.id == found).values(collection=collection)
            )
            connection.execute(sa.insert(DROPPED).values(collection=collection))
        try:
            Points(self._link, collection).make(stamp.dimension, sparse=cut.sparse)
        except Exception:
            self.abandon(found)
            raise
        return found

    def keep(self, connection: sa.Connection, generation: int) -> None:
        """Say, in the transaction that gives it to a corpus, that a generation is needed."""
        collection = connection.scalar(sa.select(_G.collection).where(_G.id == generation))
        connection.execute(sa.delete(DROPPED).where(DROPPED.c.collection == collection))

    def abandon(self, generation: int) -> None:
        """Remove a generation that came to be no corpus's."""
        with self._database.begin() as connection:
            drop(connection, generation)
        self.remove_dropped()

    def tidy(self, names: Sequence[str]) -> None:
        """Remove what belongs to no corpus, and point the aliases at the live generations."""
        # Of a creation that died the row is there, and no corpus has it.
        before = datetime.now(UTC) - (timedelta() if self._database.exclusive else _STALE)
        with self._database.begin() as connection:
            used = sa.union_all(
                *(sa.select(one).where(one.is_not(None)) for one in (_C.live, _C.dark, _C.previous))
            )
            died = sa.select(_G.id).where(_G.id.not_in(used), _G.made_at < before.isoformat())
            drop(connection, *connection.scalars(died))
            if self._database.exclusive:  # a seal is of a process that died
                connection.execute(sa.update(GENERATIONS).values(sealed_until=0.0))
        self.remove_dropped()
        for name in names:
            self.set_alias(name)

    def remove_dropped(self) -> None:
        """Remove collections that no generation has, now or the next time: whatever fails, what
        made them useless has been done."""
        self._tried("collections_left", self._remove_dropped)

    def _remove_dropped(self) -> None:
        with self._database.read() as connection:
            owned = sa.select(_G.collection)
            dropped = connection.scalars(
                sa.select(DROPPED.c.collection).where(DROPPED.c.collection.not_in(owned))
            ).all()
        for collection in dropped:
            if self._tried("collection_left", Points(self._link, collection).drop):
                with self._database.begin() as connection:
                    connection.execute(sa.delete(DROPPED).where(DROPPED.c.collection == collection))

    def set_alias(self, name: str) -> None:
        """Have a corpus's alias follow its live generation, now or at a later start."""
        self._tried("alias_left", partial(self._point_alias, name))

    def _point_alias(self, name: str) -> None:
        with self._database.read() as connection:
            wanted = connection.scalar(
                sa.select(_G.collection).join(CORPORA, _C.live == _G.id).where(_C.name == name)
            )
        # No collection can have this name: theirs have no dot.
        alias = f"{self._link.layout.prefix}_{name}.live"
        client = self._link.client
        with self._link.call("setting an alias") as seconds:
            found = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
            if found.get(alias) == wanted:
                return
            changes: list[Any] = []
            if alias in found:
                changes.append(
                    models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
                )
            if wanted is not None:
                changes.append(
                    models.CreateAliasOperation(
                        create_alias=models.CreateAlias(collection_name=wanted, alias_name=alias)
                    )
                )
            client.update_collection_aliases(changes, timeout=seconds)

    def _tried(self, event: str, work: Callable[[], None]) -> bool:
        """Whether something went well that may be done later just as well."""
        try:
            work()
        except ApiError as error:
            log.warning(event, reason=error.message)
            return False
        return True


def drop(connection: sa.Connection, *generations: int | None) -> None:
    """Forget generations in this transaction; their collections are noted to be removed."""
    for generation in generations:
        if generation is None:
            continue
        collection = connection.scalar(sa.select(_G.collection).where(_G.id == generation))
        if collection is None:
            continue
        connection.execute(sa.delete(DROPPED).where(DROPPED.c.collection == collection))
        connection.execute(sa.insert(DROPPED).values(collection=collection))
        for table in (DOCUMENTS, LEAVINGS):
            connection.execute(sa.delete(table).where(table.c.generation == generation))
        connection.execute(sa.delete(GENERATIONS).where(_G.id == generation))


def now_text() -> str:
    """The time as the catalogue has it."""
    return datetime.now(UTC).isoformat()
