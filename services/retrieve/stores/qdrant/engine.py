"""Corpora in Qdrant: one collection for each generation, an alias for the live one.

The catalogue says which generation is what; a change of it is one transaction, which every replica
sees. The alias `<prefix>_<corpus>` is for people and other programs: it follows in one request, and
where a process died before, when the engine is opened next.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.analysis import analyser
from services.retrieve.stores.corpus import Preferences
from services.retrieve.stores.engine import Cut, Generation, made_meanwhile
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.lifecycle import Collections, drop, now_text
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.points import Points
from services.retrieve.stores.qdrant.store import QdrantStore
from services.retrieve.stores.qdrant.tables import CORPORA, GENERATIONS
from shared.errors import ApiError
from shared.telemetry import get_logger

Role = Literal["live", "dark", "previous"]

_C, _G = CORPORA.c, GENERATIONS.c
_STATES: tuple[Role, ...] = ("previous", "dark", "live")

log = get_logger(__name__)


class QdrantEngine:
    """An `Engine` (see services/retrieve/stores/engine.py) over a Qdrant and the catalogue."""

    def __init__(
        self, database: CatalogueDatabase, link: Link, *, patience_s: float = 30.0
    ) -> None:
        """Finish what a process left that died, as far as Qdrant answers; nothing else is sent.

        patience_s: how long a write waits for a swap of another process.
        """
        self._database = database
        self._link = link
        self._patience_s = patience_s
        self._collections = Collections(database, link)
        # By their generation. Each has one: what a write is under way with is no other's to clear.
        self._stores: weakref.WeakValueDictionary[int, QdrantStore] = weakref.WeakValueDictionary()
        # By corpus the dark one that this process builds: it swaps and removes no other process's.
        self._building: dict[str, int] = {}
        self._opening = threading.Lock()
        self._collections.tidy(self.names())

    def names(self) -> list[str]:
        """See `Engine.names`."""
        with self._database.read() as connection:
            names = sa.select(_C.name).where(_C.live.is_not(None)).order_by(_C.name)
            return list(connection.scalars(names))

    def open(self, name: str) -> QdrantStore:
        """See `Engine.open`. Raises ApiError 404 where there is no such corpus."""
        return self._found(name, "live")

    def look(self) -> Mapping[str, int]:
        """See `remote.Shared`."""
        both = sa.select(GENERATIONS, CORPORA).join(CORPORA, _C.live == _G.id)
        with self._database.read() as connection:
            found = connection.execute(both.set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL))
            live = {row.qdrant_generations_id: rows.state_of(row._mapping) for row in found}
        for generation, state in live.items():
            store = self._stores.get(generation)
            if store is not None:
                store.standing.note(state)
        return {state.info.name: generation for generation, state in live.items()}

    def create(self, cut: Cut) -> QdrantStore:
        """See `Engine.create`. Raises ApiError 409 `corpus_exists` where another process was
        faster, and 422 for an unknown language."""
        name = cut.spec.name

        def appoint(connection: sa.Connection, corpus: Any, generation: int) -> None:
            if corpus is not None and corpus["live"] is not None:
                raise made_meanwhile(name)
            _update(connection, name, live=generation)

        self._make(cut, 1, appoint)
        self._collections.set_alias(name)
        return self.open(name)

    def delete(self, name: str) -> None:
        """See `Engine.delete`; no harm where there is none."""
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is not None:
                drop(connection, corpus["live"], corpus["dark"], corpus["previous"])
                connection.execute(sa.delete(CORPORA).where(_C.name == name))
        self._collections.set_alias(name)
        self._collections.remove_dropped()

    def dark(self, name: str) -> QdrantStore | None:
        """See `Engine.dark`; whoever asks for it builds it from then on."""
        store = self._opened(name, "dark")
        if store is not None:
            self._building[name] = store.generation
        return store

    def build(self, cut: Cut, above: int = 0) -> QdrantStore:
        """See `Engine.build`. Raises ApiError 422 for an unknown language."""
        name = cut.spec.name

        def appoint(connection: sa.Connection, corpus: Any, generation: int) -> None:
            drop(connection, None if corpus is None else corpus["dark"])
            _update(connection, name, dark=generation)
            self._building[name] = generation

        self._make(cut, above + 1, appoint)
        self._collections.remove_dropped()
        return self._found(name, "dark")

    def discard(self, name: str) -> None:
        """See `Engine.discard`. One that another process has put in the place of that which this
        process was building stays."""
        own = self._building.pop(name, None)
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is not None and own in (None, corpus["dark"]):
                drop(connection, corpus["dark"])
                _update(connection, name, dark=None)
        self._collections.remove_dropped()

    def swap(self, name: str, keep_until: datetime | None) -> None:
        """See `Engine.swap`. Raises ApiError 503 where the live store's seal has run out or is
        another process's by now: somebody may have written since; and 409 where another process
        builds the dark one by now."""
        own = self._building.get(name)
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is None or corpus["dark"] is None or corpus["dark"] != own:
                raise ApiError(
                    409,
                    "no_dark_generation",
                    f"corpus '{name}' has no generation that is being built here",
                )
            if corpus["live"] is not None:
                if keep_until is None:
                    raise made_meanwhile(name)
                live = rows.state(connection, corpus["live"], name)
                self._require_sealed(corpus["live"], live)
                goes_on = sa.case((_G.writes > live.info.writes, _G.writes), else_=live.info.writes)
                connection.execute(
                    sa.update(GENERATIONS).where(_G.id == corpus["dark"]).values(writes=goes_on + 1)
                )
                self._retire(connection, corpus, keep_until)
            _update(connection, name, live=corpus["dark"], dark=None)
            number = connection.scalar(sa.select(_G.number).where(_G.id == corpus["dark"]))
        self._building.pop(name, None)
        log.info("generation_swapped", corpus=name, generation=number)
        self._collections.set_alias(name)
        self._collections.remove_dropped()

    def step_down(self, name: str, keep_until: datetime) -> None:
        """See `Engine.step_down`. Raises ApiError 503 as `swap`."""
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is not None and corpus["live"] is not None:
                live = rows.state(connection, corpus["live"], name)
                self._require_sealed(corpus["live"], live)
                self._retire(connection, corpus, keep_until)
                _update(connection, name, live=None)
        self._collections.set_alias(name)
        self._collections.remove_dropped()

    def revive(self, name: str, above: int = 0) -> QdrantStore:
        """See `Engine.revive`."""
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is None or corpus["previous"] is None:
                raise ApiError(
                    409,
                    "no_previous_generation",
                    f"corpus '{name}' keeps no previous generation",
                )
            drop(connection, corpus["dark"])
            number = max(corpus["last"], above) + 1
            connection.execute(
                sa.update(GENERATIONS)
                .where(_G.id == corpus["previous"])
                .values(number=number, sealed_until=0.0)
            )
            _update(
                connection, name, dark=corpus["previous"], previous=None, until=None, last=number
            )
            self._building[name] = corpus["previous"]
        self._collections.remove_dropped()
        return self._found(name, "dark")

    def shelve(self, name: str, keep_until: datetime) -> None:
        """See `Engine.shelve`."""
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is not None and corpus["dark"] is not None:
                drop(connection, corpus["previous"])
                until = keep_until.astimezone(UTC).isoformat()
                _update(connection, name, previous=corpus["dark"], dark=None, until=until)
        self._collections.remove_dropped()

    def forget(self, name: str, now: datetime) -> bool:
        """See `Engine.forget`."""
        with self._database.begin() as connection:
            corpus = _corpus(connection, name)
            if corpus is None or corpus["previous"] is None:
                return False
            if now < datetime.fromisoformat(corpus["until"]):
                return False
            drop(connection, corpus["previous"])
            _update(connection, name, previous=None, until=None)
        self._collections.remove_dropped()
        return True

    def generations(self, name: str) -> Sequence[Generation]:
        """See `Engine.generations`."""
        found = []
        with self._database.read() as connection:
            corpus = connection.execute(_selected(name)).mappings().one_or_none()
            for state in _STATES:
                if corpus is None or corpus[state] is None:
                    continue
                one = rows.state(connection, corpus[state], name)
                until = datetime.fromisoformat(corpus["until"]) if state == "previous" else None
                info = one.info
                counts = (info.documents, info.chunks)
                found.append(
                    Generation(info.generation, state, Cut.of(info), *counts, one.made_at, until)
                )
        return sorted(found, key=lambda one: one.number)

    def close(self) -> None:
        """See `Engine.close`. The catalogue is its owner's."""
        self._link.close()

    def _make(
        self, cut: Cut, least: int, appoint: Callable[[sa.Connection, Any, int], None]
    ) -> None:
        """Make an empty generation, its number at least `least`, and give it to its corpus, which
        is made where there is none: `appoint` is given its row, None for one that is new."""
        analyser(cut.spec.language)  # raises for an unknown language while there is nothing yet
        name = cut.spec.name
        generation = self._collections.prepare(cut)
        try:
            with self._database.begin() as connection:
                corpus = _corpus(connection, name)
                number = max(least, 1 if corpus is None else corpus["last"] + 1)
                connection.execute(
                    sa.update(GENERATIONS).where(_G.id == generation).values(number=number)
                )
                values = _preferences(cut) | {"last": number}
                if corpus is None:
                    made = {"name": name, "created_at": now_text()}
                    connection.execute(sa.insert(CORPORA).values(**made, **values))
                elif corpus["live"] is None:  # what it says of itself is of another engine
                    _update(connection, name, **values)
                else:
                    _update(connection, name, last=number)
                self._collections.keep(connection, generation)
                appoint(connection, corpus, generation)
        except Exception:
            self._collections.abandon(generation)
            raise

    def _retire(self, connection: sa.Connection, corpus: Any, keep_until: datetime) -> None:
        """Make the live generation the previous one."""
        drop(connection, corpus["previous"])
        until = keep_until.astimezone(UTC).isoformat()
        _update(connection, corpus["name"], previous=corpus["live"], until=until)

    def _require_sealed(self, generation: int, live: rows.State) -> None:
        """Raise ApiError 503 unless the live generation's seal, if there is one, is that of this
        process's store, and holds."""
        store = self._stores.get(generation)
        until = 0.0 if store is None else store.standing.sealed_until
        if live.sealed_until != until or 0 < until < datetime.now(UTC).timestamp():
            raise ApiError(
                503,
                "store_unavailable",
                f"corpus '{live.info.name}' was held too long for another generation to take its "
                "place: nothing was changed; catch up and swap again",
                headers={"Retry-After": "1"},
            )

    def _found(self, name: str, state: Role) -> QdrantStore:
        store = self._opened(name, state)
        if store is None:
            raise ApiError(404, "corpus_not_found", f"there is no corpus '{name}' in Qdrant")
        return store

    def _opened(self, name: str, state: Role) -> QdrantStore | None:
        with self._database.read() as connection:
            corpus = connection.execute(_selected(name)).mappings().one_or_none()
            generation = None if corpus is None else corpus[state]
            if generation is None:
                return None
            found = rows.state(connection, generation, name)
        with self._opening:
            there = self._stores.get(generation)
            if there is not None and there.writable:
                there.standing.note(found)
                return there
            points = Points(self._link, found.collection)
            if self._link.in_process and not points.exists():
                raise _gone_with_its_process(name)
            store = QdrantStore(
                self._database, points, generation, found, patience_s=self._patience_s
            )
            self._stores[generation] = store
        store.sweep()
        return store


def _gone_with_its_process(name: str) -> ApiError:
    return ApiError(
        500,
        "corpus_damaged",
        f"corpus '{name}' was in a process's memory (REFDESK_QDRANT_URL=:memory:), and is gone "
        f"with the process: delete it with `refdesk corpora delete {name}` or DELETE "
        f"/corpora/{name}, and load its documents again; a Qdrant server keeps what it is given",
    )


def _selected(name: str) -> sa.Select[Any]:
    return sa.select(CORPORA).where(_C.name == name)


def _corpus(connection: sa.Connection, name: str) -> Any:
    """A corpus's row, held until the transaction ends; None where there is none."""
    return connection.execute(_selected(name).with_for_update()).mappings().one_or_none()


def _update(connection: sa.Connection, name: str, **values: Any) -> None:
    """Change a corpus's row; one that no generation is left of goes."""
    connection.execute(sa.update(CORPORA).where(_C.name == name).values(**values))
    empty = sa.and_(_C.live.is_(None), _C.dark.is_(None), _C.previous.is_(None))
    if values.keys() & {"live", "dark", "previous"}:
        connection.execute(sa.delete(CORPORA).where(_C.name == name, empty))


def _preferences(cut: Cut) -> dict[str, Any]:
    spec = cut.spec
    curate = True if spec.curate is None else spec.curate
    return rows.preferences_row(Preferences(spec.description, curate, spec.recency, spec.readers))
