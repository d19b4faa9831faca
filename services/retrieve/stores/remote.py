"""What engines and stores beyond this process offer beside their contracts, and others do not.

A search of a remote store costs a round trip, and its corpora may be changed by other processes.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from services.retrieve.stores.base import EVERYTHING, Scope, Vector
from services.retrieve.stores.sparse_vector import Sparse

Hits = list[tuple[int, float]]  # keys and scores, best first


@runtime_checkable
class Batched(Protocol):
    """A `CorpusStore` that searches by several arms in one round trip."""

    def lists(
        self,
        limit: int,
        scope: Scope = EVERYTHING,
        *,
        words: str | None = None,
        vector: Vector | None = None,
        sparse: Sparse | None = None,
    ) -> tuple[Hits, Hits, Hits]:
        """What `bm25`, `dense` and `sparse` give for those of the three that are there; an empty
        list for each that is not. Raises what they raise."""
        ...


@runtime_checkable
class Shared(Protocol):
    """An `Engine` whose corpora other processes make, swap and delete, too."""

    def look(self) -> Mapping[str, int]:
        """Of each corpus that has a live generation here a number that only that generation has.

        The stores that are open know from then on what other processes wrote, too.
        """
        ...
