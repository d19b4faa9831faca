"""What this process knows of a generation: as it read the catalogue last."""

import threading
from collections.abc import Iterable

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.rows import Live
from services.retrieve.stores.qdrant.tables import GENERATIONS


class Standing:
    """The state of one generation, for any number of threads."""

    def __init__(self, database: CatalogueDatabase, generation: int, state: rows.State) -> None:
        self._database = database
        self._generation = generation
        self._state = state
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

    def seal(self, until: float) -> None:
        """Have every process's writes wait until a time, in seconds since 1970; 0.0 ends it."""
        with self._database.begin() as connection:
            connection.execute(
                sa.update(GENERATIONS)
                .where(GENERATIONS.c.id == self._generation)
                .values(sealed_until=until)
            )
