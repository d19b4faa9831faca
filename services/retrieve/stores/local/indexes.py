"""What follows the database of a local corpus: an index for each arm, and who may see what."""

from dataclasses import dataclass

from services.retrieve.stores.local.dense import DenseIndex
from services.retrieve.stores.local.lexical import LexicalIndex
from services.retrieve.stores.local.scopes import Scopes
from services.retrieve.stores.local.sparse import SparseIndex
from shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Indexes:
    """The indexes of one corpus. sparse: None where it has no sparse vectors. lexical: None while
    it is built anew."""

    dense: DenseIndex
    sparse: SparseIndex | None
    lexical: LexicalIndex | None
    scopes: Scopes

    def tidy(self, corpus: str) -> None:
        """What a write need not have done for searches to be right, and no search waits for."""
        if self.sparse is None:
            return
        try:
            self.sparse.merge()
        except Exception as error:  # the next write tries again
            log.exception("sparse_not_merged", corpus=corpus, reason=str(error))

    def close(self, *, keep: bool = True) -> None:
        """Let go of the files; searches that are running end well. keep: see `CorpusStore`."""
        try:
            if self.lexical is not None:
                self.lexical.close()
        finally:
            self.dense.close(keep=keep)
