"""A local corpus with a document, for tests of its generations and of its checksums."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.local.engine import LocalEngine
from tests.corpora import STAMP, document

CUT = Cut(CorpusSpec("c", "Described", chunk_tokens=64, curate=True), STAMP, "chunker-1")


@contextmanager
def one_corpus(folder: Path) -> Iterator[LocalEngine]:
    """An engine in a folder, with a corpus "c" that holds a document "old"."""
    engine = LocalEngine.at(folder)
    store = engine.create(CUT)
    store.write([document("old", ["old words"])])
    store.close()
    yield engine
    engine.close()
