"""A process that writes to a corpus until it is killed, and says what it has written."""

import random
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from services.retrieve.corpus.catalog import Catalog
from tests.corpora import document

NAMES = [f"d{number}" for number in range(12)]


def texts(name: str, version: int) -> list[str]:
    """The chunks of a document's version: as many as the version says, each naming both."""
    return [f"{name}v{version} part {part}" for part in range(1 + version % 5)]


def main(folder: Path, seed: int, first: int, told_to: Connection) -> None:
    """Send {id: version} after each write that returned, the version None for a delete."""
    chance = random.Random(seed)
    store = Catalog.open(folder).get("c")
    for version in count(first):
        names = chance.sample(NAMES, chance.randint(1, 4))
        told: int | None = version
        if chance.random() < 0.2:
            store.delete([names[0]])
            names, told = names[:1], None
        else:
            store.write([document(name, texts(name, version)) for name in names])
        told_to.send(dict.fromkeys(names, told))
