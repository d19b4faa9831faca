"""The documents of a corpus, one after the other, as a file that others can read.

Which documents there are is taken from one moment of the corpus; each is then read in one state of
its own, when its turn comes. One that is deleted meanwhile is left out, and one that is replaced
comes as it is by then. Nothing here grows with the corpus but a nameless file with the ids.
"""

import base64
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from services.retrieve.stores.base import CorpusStore, DocumentFormat, NewDocument
from services.retrieve.stores.corpus import ModelStamp

_PART = 16  # documents read at a time
# Formats of files that are no text: what was taken from them goes in again as it is.
_AS_IT_IS: frozenset[DocumentFormat] = frozenset({"text", "pdf", "docx", "pptx", "xlsx", "eml"})


def documents(store: CorpusStore, folder: Path) -> Iterator[NewDocument]:
    """Every document of a corpus, by ascending id. folder: where the list of ids may be kept, in a
    file that has no name and goes with the process. Raises what the store does, and OSError."""
    with tempfile.TemporaryFile(dir=folder) as ids:
        for revision in store.revisions():
            ids.write(orjson.dumps(revision.id) + b"\n")
        ids.seek(0)
        while part := [orjson.loads(line) for line in islice(ids, _PART)]:
            yield from store.whole(part).values()


def lines(store: CorpusStore, folder: Path, *, vectors: bool) -> Iterator[bytes]:
    """An export as NDJSON: a line for each document, as POST …/ingest takes it."""
    stamp = store.info.stamp
    for document in documents(store, folder):
        yield orjson.dumps(record(document, stamp if vectors else None)) + b"\n"


def record(document: NewDocument, stamp: ModelStamp | None) -> dict[str, Any]:
    """A document as a value of JSON. stamp: of the vectors; None leaves its chunks out, and then a
    text that is not to be parsed a second time is called plain text."""
    found: dict[str, Any] = {
        "id": document.id,
        "text": document.text,
        "title": document.title,
        "url": document.url,
        "format": document.format if stamp or document.format in _AS_IT_IS else "text",
        "metadata": dict(document.metadata),
        "readers": document.readers,
    }
    if stamp is None:
        return found
    chunks: list[dict[str, Any]] = []
    for number, chunk in enumerate(document.chunks):
        one: dict[str, Any] = {
            "start": chunk.start,
            "end": chunk.end,
            "vector": base64.b64encode(document.vectors[number].astype("<f4").tobytes()).decode(),
        }
        if document.sparse is not None:
            words = document.sparse[number]
            one["sparse"] = {"indices": words.tokens.tolist(), "values": words.weights.tolist()}
        chunks.append(one)
    return {
        **found,
        "stamp": {
            "model": stamp.model,
            "revision": stamp.revision,
            "dimension": stamp.dimension,
        },
        "chunks": chunks,
    }
