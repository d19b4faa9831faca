"""Which chunks a scope lets through, found once per scope and state of the corpus."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Scope
from services.retrieve.stores.local.database import Database

Keys = NDArray[np.int64]

_MOST_SCOPES = 256
_MOST_BYTES = 64 * 1024 * 1024


class Scopes:
    """The keys of the chunks in a scope, by the database, with the last used ones at hand.

    Safe to use from several threads. What is found while a write is on its way to the indexes is of
    neither state: `LocalStore` searches again then.
    """

    def __init__(self, database: Database) -> None:
        """All chunks as they are in the database now."""
        self._database = database
        self._keys, self._owners = database.keys()
        self._found: OrderedDict[Scope, Keys | None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def keys(self) -> Keys:
        """The keys of all chunks, ascending."""
        return self._keys

    def allowed(self, scope: Scope) -> Keys | None:
        """The keys of the chunks in the scope, ascending, or None where all of them are."""
        with self._lock:
            if scope in self._found:
                self._found.move_to_end(scope)
                return self._found[scope]
            every, owners = self._keys, self._owners
        seen = self._database.documents_in(scope).where(owners)
        found = None if seen.all() else every[seen]
        with self._lock:
            if every is self._keys:  # not of a state that is gone
                self._found[scope] = found
                while len(self._found) > 1 and not self._within_bounds():
                    self._found.popitem(last=False)
        return found

    def change(self, removed: Sequence[int], added: Sequence[int], owners: Sequence[int]) -> None:
        """Follow a write: the keys that went, and those that came, greater than all before.

        `owners` are the numbers of the documents of those that came.
        """
        kept = ~np.isin(self._keys, np.asarray(removed, np.int64))
        keys = np.concatenate([self._keys[kept], np.asarray(added, np.int64)])
        numbers = np.concatenate([self._owners[kept], np.asarray(owners, np.int64)])
        with self._lock:
            self._keys, self._owners = keys, numbers
            self._found.clear()

    def _within_bounds(self) -> bool:
        size = sum(keys.nbytes for keys in self._found.values() if keys is not None)
        return len(self._found) <= _MOST_SCOPES and size <= _MOST_BYTES
