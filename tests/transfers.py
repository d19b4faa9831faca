"""A corpus with everything that a corpus can have, for exports and backups of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusSpec, RecencyDefault
from services.retrieve.stores.outline import Mark, Place
from tests.corpora import STAMP, document

SPEC = CorpusSpec(
    "shelf",
    "What we know",
    language="de",
    chunk_tokens=128,
    curate=False,
    recency=RecencyDefault(90, 0.2, "written"),
    readers=("hr",),
)
METADATA: dict[str, Any] = {
    "year": 2026,
    "tags": ["a", "ä"],
    "open": True,
    "share": 0.5,
    "written": "2026-01-31",
}


def shelf_documents() -> list[NewDocument]:
    """Documents with everything that a document can have."""
    plain = document("plain", ["one text", "and another one"])
    rich = document("rich/ä ☂", ["der Mond", "die Sonne"], "Titel", METADATA, ("hr", "anna"))
    chunks = [replace(one, place=Place(("Himmel",), (1, 2), bytes=(0, 8))) for one in rich.chunks]
    rich = replace(
        rich,
        url="https://handbook.example/mond",
        format="pdf",
        chunks=chunks,
        outline=(Mark("heading", 0, 3, "Himmel", 1),),
    )
    return [plain, rich, document("secret", ["for nobody"], readers=())]


@contextmanager
def shelf(data: Path) -> Iterator[Catalog]:
    """A catalog with the corpus `shelf`, in a data folder."""
    catalog = Catalog.open(data / "corpora")
    catalog.create(SPEC, STAMP)
    catalog.get("shelf").write(shelf_documents())
    yield catalog
    catalog.close()
