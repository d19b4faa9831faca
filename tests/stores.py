"""The engines behind `CorpusStore`, each by a way to a fresh corpus; a new one is a line here."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from tests.corpora import STAMP
from tests.qdrant import qdrant_corpus


class OpenStore(Protocol):
    """Opens an empty corpus "c" for a block; the folder is the test's own."""

    def __call__(self, folder: Path, /, *, sparse: bool) -> AbstractContextManager[CorpusStore]:
        """sparse: whether it has sparse vectors."""
        ...


@contextmanager
def local_corpus(folder: Path, *, sparse: bool) -> Iterator[CorpusStore]:
    """One in a folder of this machine."""
    catalog = Catalog.open(folder / "corpora")
    catalog.create(CorpusSpec("c"), STAMP, sparse=sparse)
    yield catalog.get("c")
    catalog.close()


STORES: Mapping[str, OpenStore] = {"local": local_corpus, "qdrant": qdrant_corpus}
