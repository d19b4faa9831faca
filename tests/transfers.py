"""A corpus with everything that a corpus can have, for exports and backups of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer import backup
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import CorpusSpec, RecencyDefault
from services.retrieve.stores.local.layout import DATABASE
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


ARRAYS = {"chunks", "vectors", "sparse"}  # compared in another way, or not at all


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


def saved(store: CorpusStore, folder: Path, to: Path) -> Path:
    """A backup in a folder of its own, as it is uploaded."""
    to.mkdir()
    made = backup.make(store, folder)
    (to / DATABASE).write_bytes(b"".join(made.parts()))
    assert (to / DATABASE).stat().st_size == made.size
    return to


def content(store: CorpusStore) -> dict[str, tuple[Any, ...]]:
    """All that there is to know of each document."""
    ids = [revision.id for revision in store.revisions()]
    return {
        id_: (
            [getattr(one, field.name) for field in fields(one) if field.name not in ARRAYS],
            tuple(one.chunks),
            one.vectors.tobytes(),
            [(s.tokens.tolist(), s.weights.tolist()) for s in one.sparse or ()],
        )
        for id_, one in store.whole(ids).items()
    }


def later() -> datetime:
    """When what a restore replaced may go."""
    return datetime.now(UTC) + timedelta(days=1)
