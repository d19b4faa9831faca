"""A data folder for the doctor to look at."""

from pathlib import Path

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.corpus import CorpusSpec
from tests.corpora import STAMP, document
from tests.invariants import Wanted

WORDS = ["amber", "basin", "cedar", "delta"]


def documents() -> dict[str, Wanted]:
    """What is in each corpus of the folder."""
    return {
        word: document(word, [f"{word} stands here", "and there"], metadata={"word": word})
        for word in WORDS
    }


def make_folder(folder: Path) -> Path:
    """A data folder that nobody uses, with corpora "c" and "other", and a catalogue."""
    catalog = Catalog.open(folder / "corpora")
    for name in ("c", "other"):
        catalog.create(CorpusSpec(name), STAMP)
        catalog.get(name).write(list(documents().values()))
    catalog.close()
    CatalogueDatabase.open("", folder).close()
    return folder
