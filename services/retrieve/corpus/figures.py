"""The figures of a corpus, whichever engine holds it."""

import heapq
from collections.abc import Iterator

from services.retrieve.stores.base import CorpusStore, DocumentSummary
from services.retrieve.stores.figures import LONGEST, Counted, Figures

_PAGE = 1000


def figures_of(store: CorpusStore) -> Figures:
    """The figures of a corpus; of one that does not count for itself, as far as its list of
    documents tells them. Raises what the store does."""
    if isinstance(store, Counted):
        return store.figures()
    last = max((one.updated_at for one in _listed(store)), default=None)
    longest = heapq.nsmallest(LONGEST, _listed(store), key=lambda one: (-one.chunks, one.id))
    return Figures(None, None, last, longest, None)


def _listed(store: CorpusStore) -> Iterator[DocumentSummary]:
    after = None
    while page := store.documents(_PAGE, after):
        yield from page
        after = page[-1].id
