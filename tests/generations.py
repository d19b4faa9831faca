"""A local corpus with a document, for tests of its generations and of its checksums."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.retrieve.stores.base import CorpusStore
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


def there(folder: Path) -> set[str]:
    """What is in the corpus's folder, once what is on its way out has gone."""
    for _ in range(100):
        names = {path.name for path in (folder / "c").iterdir()}
        live = json.loads((folder / "c" / "live.json").read_bytes())
        named = {live["generation"], live["previous"], live["dark"]} - {None}
        if names == {"live.json", *(f"g{number}" for number in named)}:
            break
        time.sleep(0.05)
    return names


def ids(store: CorpusStore) -> list[str]:
    """Of its documents, in order."""
    return [one.id for one in store.documents(99, None)]
