"""What this process knows of a generation: as it read the catalogue last."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.rows import Live
from services.retrieve.stores.qdrant.tables import GENERATIONS
from shared.errors import ApiError

_SEAL_S = 120.0
_G = GENERATIONS.c


class Standing:
    """The state of one generation, for any number of threads."""

    def __init__(self, database: CatalogueDatabase, generation: int, state: rows.State) -> None:
        self._database = database
        self._generation = generation
        self._state = state
        self.sealed_until = 0.0  # by this process, seconds since 1970
        self._noting = threading.Lock()

    @property
    def state(self) -> rows.State:
        """As it was read last; nothing is read."""
        return self._state

    @property
    def info(self) -> CorpusInfo:
        """Settings and counts of that state."""
        return self._state.info

    def note(self, state: rows.State) -> None:
        """Go by a state that was read, unless another thread has read a later one."""
        with self._noting:
            if state.info.writes >= self._state.info.writes:
                self._state = state

    def read(self) -> rows.State:
        """The state of now. Raises ApiError 404 where the generation is no more."""
        with self._database.read() as connection:
            state = rows.state(connection, self._generation, self.info.name)
        self.note(state)
        return state

    def look(self, numbers: Iterable[int]) -> tuple[dict[int, Live], int]:
        """The live documents of some numbers, and the count of writes; of one state."""
        with self._database.read() as connection:
            # The count last: a write between the two is then taken for one during the search.
            live = rows.live(connection, self._generation, numbers)
            state = rows.state(connection, self._generation, self.info.name)
        self.note(state)
        return live, state.info.writes

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Have every process's writes wait while the block lasts, at most two minutes; what was
        written before is in `info`. Raises ApiError 503 where another process has them wait."""
        until = time.time() + _SEAL_S
        if not self._seal(until, _G.sealed_until < time.time()):
            self.read()  # says so where another process deleted the corpus
            raise ApiError(
                503,
                "store_unavailable",
                f"another process gives corpus '{self.info.name}' another generation just now; "
                "nothing was changed: try again",
                headers={"Retry-After": "1"},
            )
        self.sealed_until = until
        try:
            self.read()
            yield
        finally:
            self.sealed_until = 0.0
            # After standing still it may have run out, and the one that is there be another's.
            with suppress(ApiError):  # it runs out by itself, and what was done is done
                self._seal(0.0, _G.sealed_until == until)

    def _seal(self, until: float, so_far: sa.ColumnElement[bool]) -> bool:
        """Seal until a time, 0.0 for not at all; False where it is not `so_far`."""
        with self._database.begin() as connection:
            return bool(
                connection.execute(
                    sa.update(GENERATIONS)
                    .where(_G.id == self._generation, so_far)
                    .values(sealed_until=until)
                ).rowcount
            )
