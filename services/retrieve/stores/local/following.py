"""The indexes of a corpus, which follow its database: made, changed with each write, and searched.

One write changes the database and all indexes, or nothing; where an index can't follow what is
committed, all are made anew. The word index of a large corpus is built in the background then, and
whenever it is found missing or damaged: the other arms answer meanwhile, and writes go on.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from services.retrieve.stores.analysis import analyser, terms
from services.retrieve.stores.base import EVERYTHING, NewDocument, Scope
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.dense_gpu import Place
from services.retrieve.stores.local.faults import write_failed
from services.retrieve.stores.local.indexes import Indexes
from services.retrieve.stores.local.layout import DENSE, LEXICAL
from services.retrieve.stores.local.lexical import LexicalDamagedError, LexicalIndex
from services.retrieve.stores.local.rebuilding import (
    AT_ONCE,
    Rebuild,
    being_rebuilt,
    build,
    note,
)
from services.retrieve.stores.local.scopes import Keys, Scopes
from services.retrieve.stores.local.sparse import SparseIndex
from services.retrieve.stores.local.transaction import Transaction
from services.retrieve.stores.state import Finding
from shared.errors import ApiError
from shared.telemetry import get_logger

_Found = TypeVar("_Found")

ARM = "bm25"  # the one that the word index serves

log = get_logger(__name__)


class Following:
    """The indexes of an open corpus. Searches may run at any time; writes must follow one another.

    `info` is that of the database's last commit which the indexes have followed.
    """

    def __init__(
        self, folder: Path, database: Database, place: Place | None, writing: threading.Lock
    ) -> None:
        """Open the indexes in a corpus's folder, or make those that do not agree with the database.

        place: the GPU that searches vectors, None for the processor. writing: held by whoever
        writes, and by whoever closes.
        """
        self._folder = folder
        self._database = database
        self._place = place
        self._writing = writing
        self.info = database.info()
        self._analyser = analyser(self.info.language)
        self._rebuild: Rebuild | None = None
        # Held while database and indexes are of different states; the count is odd then.
        self._swapping = threading.RLock()
        self._swaps = 0
        self._refused = False  # a write, since the word index was opened
        self._followed: Indexes | None = self._open()

    @property
    def indexes(self) -> Indexes:
        """Those to search. Raises ApiError 500 where there are none that follow the database."""
        found = self._followed
        if found is None:
            with self._swapping:  # they may be on their way
                found = self._followed
        if found is None:
            raise ApiError(
                500,
                "corpus_damaged",
                f"the indexes of {self._database.path} can't follow it (see the log of retrieve); "
                "all that was stored is in it: restart retrieve, which builds them anew",
            )
        return found

    @property
    def lexical(self) -> LexicalIndex:
        """The word index. Raises ApiError 503 `index_rebuilding` while it is built anew."""
        found = self.indexes.lexical
        if found is None:
            raise being_rebuilt(self.info.name, self.rebuilding.get(ARM, 1.0))
        return found

    @property
    def rebuilding(self) -> Mapping[str, float]:
        """The arms whose index is built anew, and how much of it is there, 0.0 to 1.0."""
        rebuild = self._rebuild
        return {} if rebuild is None else {ARM: rebuild.progress}

    def terms(self, text: str) -> list[str]:
        """The terms of a text as the word index has them, whether it is there or not."""
        return terms(text, self.info.language, self._analyser)

    @property
    def sparse(self) -> SparseIndex:
        """That of the sparse vectors. Raises ValueError where the corpus has none."""
        found = self.indexes.sparse
        if found is None:
            raise ValueError(f"corpus {self.info.name} has no sparse vectors")
        return found

    def within(self, scope: Scope, search: Callable[[Keys | None], _Found]) -> _Found:
        """What `search` finds among the keys of a scope, both of one state of the corpus.

        Keys of one state in an index of another would leave out a document that is being replaced,
        or let through one that just came. So a search that met a write is done once more, and no
        write can come between then.
        """
        if scope == EVERYTHING:
            return search(None)
        before = self._swaps
        if before % 2 == 0:
            found = search(self.indexes.scopes.allowed(scope))
            if self._swaps == before:
                return found
        with self._swapping:
            return search(self.indexes.scopes.allowed(scope))

    @contextmanager
    def changing(self, added: Sequence[NewDocument]) -> Iterator[Transaction]:
        """One write: the block changes the database, the indexes follow; all of it or nothing.

        The word index is committed on disk just before the database. Should the process die between
        the two, the stamps differ and the index is built anew on the next open; should either be
        refused by the disk, neither has changed. `added` are the documents that the block writes.
        """
        if self._refused and self.indexes.lexical is not None:
            # What the word index took in without the database must not come up in the next commit.
            self._followed = replace(self.indexes, lexical=self._open_lexical())
        self._refused = False
        lexical = self.indexes.lexical
        with ExitStack() as window:
            try:
                with self._database.transaction() as change:
                    yield change
                    stamp = ""  # one that is on its way finds at its end what was written meanwhile
                    try:
                        if lexical is not None:
                            stamp = lexical.write(change.removed, change.bodies())
                    except (OSError, ValueError) as error:
                        raise write_failed(error, self._folder / LEXICAL) from error
                    change.finish(stamp)
                    window.enter_context(self._swap())
            except BaseException:
                self._refused = True
                if lexical is not None:
                    lexical.close()
                raise
            # Not in the handler of what went wrong, which keeps hold of the indexes of before.
            if not self._follow(change, added):
                self._open_anew()
        if self._followed is not None:
            self._followed.tidy(self.info.name)

    def refresh(self) -> None:
        """Take note of settings that were changed in the database."""
        self.info = self._database.info()

    def rest(self) -> None:
        """Let go of what serves writing alone; they may go on afterwards."""
        self._give_up()
        if self._followed is not None and self._followed.lexical is not None:
            self._followed.lexical.close()

    def findings(self) -> Iterator[Finding]:
        """Where an index holds other chunks than the database, or its files are damaged. No write
        may come between."""
        keys, _ = self._database.keys()
        indexes, wanted = self.indexes, keys.tolist()
        folder, language = self._folder / LEXICAL, self.info.language
        try:
            lexical = LexicalIndex.open(folder, language, self._database.lexical_stamp()).keys()
            held = {"the word index": lexical}
        except LexicalDamagedError as error:
            held = {}
            what = "it is being built anew" if self.rebuilding else str(error)
            yield Finding(str(folder), what, derived=True)
        held["the vector index"] = indexes.dense.keys()
        held["what scopes are found by"] = indexes.scopes.keys
        if indexes.sparse is not None:
            held["the index of sparse vectors"] = indexes.sparse.keys()
        for name, found in held.items():
            if found.tolist() != wanted:
                what = f"it holds {len(found)} chunks, and not the {len(wanted)} that there are"
                yield Finding(f"{self._folder}: {name}", what, derived=True)

    def close(self, *, keep: bool) -> None:
        """Let go of the files; searches that are running end well. keep: see `CorpusStore`."""
        self._give_up()
        if self._followed is not None:
            self._followed.close(keep=keep)

    def _follow(self, change: Transaction, added: Sequence[NewDocument]) -> bool:
        """Whether the indexes could follow a write that is committed."""
        indexes = self.indexes
        try:
            none = np.empty((0, self.info.dimension), np.float32)
            vectors = np.concatenate([none, *(document.vectors for document in added)])
            indexes.dense.change(change.removed, change.added, vectors)
            if indexes.sparse is not None:
                sparse = [one for document in added for one in document.sparse or ()]
                indexes.sparse.change(change.removed, change.added, sparse)
            if indexes.lexical is not None:
                indexes.lexical.reload()
            indexes.scopes.change(change.removed, change.added, change.owners)
            self.info = self._database.info()
        except Exception as error:  # it is stored, whatever it was
            log.exception("indexes_rebuilt", corpus=self.info.name, reason=str(error))
            return False
        return True

    def _open_anew(self) -> None:
        """Make all indexes from the database; where that fails nothing is searched, as what there
        was would be wrong. Searches wait meanwhile: two of all might be too large."""
        try:
            indexes, self._followed = self.indexes, None
            indexes.close()
            del indexes
            self.info = self._database.info()
            self._followed = self._open()
        except Exception as error:
            log.exception("indexes_failed", corpus=self.info.name, reason=str(error))

    def _open(self) -> Indexes:
        """The indexes of the database's last commit."""
        keys, vectors = self._database.vectors()
        dense = DenseIndex(
            self.info.dimension,
            keys,
            vectors,
            last_key=self._database.last_key(),
            folder=self._folder / DENSE,
            place=self._place,
        )
        try:
            sparse = None
            if self.info.sparse:
                sparse = SparseIndex(self._database.sparse_vectors())
            return Indexes(dense, sparse, self._open_lexical(), Scopes(self._database))
        except BaseException:
            dense.close()
            raise

    @contextmanager
    def _swap(self) -> Iterator[None]:
        """From just before the database's commit until the indexes have followed."""
        with self._swapping:
            self._swaps += 1
            try:
                yield
            finally:
                self._swaps += 1

    def _open_lexical(self) -> LexicalIndex | None:
        """The word index of the database's last commit, built anew unless it is there and sound;
        None where that takes its time, and is done in the background."""
        if self._rebuild is not None:
            return None
        folder, info = self._folder / LEXICAL, self.info
        try:
            index = LexicalIndex.open(folder, info.language, self._database.lexical_stamp())
            if len(index) == info.chunks:
                return index
            reason = f"it holds {len(index)} chunks of {info.chunks}"
        except LexicalDamagedError as error:
            reason = str(error)
        if info.writes > 0:
            log.warning("word_index_rebuilt", corpus=info.name, reason=reason, chunks=info.chunks)
        if info.chunks > AT_ONCE:
            self._rebuild = Rebuild(folder, self._database, self._writing, self._take)
            return None
        index = build(folder, self._database, self._database.bodies)
        note(self._database, index)
        return index

    def _take(self, index: LexicalIndex) -> None:
        """Search with a word index that was built anew. No write may come between."""
        if self._followed is not None:
            self._followed = replace(self._followed, lexical=index)
        self._rebuild = None

    def _give_up(self) -> None:
        """Stop building what nobody is going to take."""
        rebuild = self._rebuild
        if rebuild is not None:
            rebuild.stop()
