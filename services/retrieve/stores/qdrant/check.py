"""Whatever disagrees between the catalogue and a generation's points."""

import zlib
from collections.abc import Iterator

import numpy as np
import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.points import MOST_CHUNKS, Point, Points, number_of
from services.retrieve.stores.qdrant.tables import DOCUMENTS, LEAVINGS
from services.retrieve.stores.qdrant.words import Words, body
from services.retrieve.stores.state import Finding

_D = DOCUMENTS.c
_UNIT = 1e-3  # how far from 1 the norm of a vector may be


def check(
    database: CatalogueDatabase, points: Points, words: Words, generation: int, name: str
) -> Iterator[Finding]:
    """Read all points and all documents, in the order of their numbers, and tell what is wrong.

    To be done while nobody writes: a write that is under way looks like a fault.
    """
    with database.read() as connection:
        state = rows.state(connection, generation, name)
        leaving = set(
            connection.scalars(
                sa.select(LEAVINGS.c.number).where(LEAVINGS.c.generation == generation)
            )
        )
        documents = {
            row.number: row
            for row in rows.every(
                connection, generation, _D.number, _D.number, _D.id, _D.chunks, _D.title
            )
        }
    chunks = sum(row.chunks for row in documents.values())
    if (len(documents), chunks) != (state.info.documents, state.info.chunks):
        yield Finding(
            "catalogue",
            f"counts {state.info.documents} documents and {state.info.chunks} chunks, and has "
            f"{len(documents)} and {chunks}",
        )
    seen = dict.fromkeys(documents, 0)
    text, text_of = "", -1
    for point in points.every():
        number = number_of(point.key)
        row = documents.get(number)
        if row is None or point.key % MOST_CHUNKS >= row.chunks:
            if number not in leaving:
                yield Finding(f"point {point.key}", "belongs to no document")
            continue
        seen[number] += 1
        if text_of != number:
            with database.read() as connection:
                found = rows.of_ids(connection, generation, [row.id], _D.number, _D.text)
            text, text_of = found[row.id].text if row.id in found else "", number
        where = f"chunk {row.id}#{point.key % MOST_CHUNKS}"
        yield from _of_point(point, where, text, row.title, words, state)
    for number, row in documents.items():
        if seen[number] != row.chunks:
            yield Finding(f"document {row.id}", f"has {seen[number]} points of {row.chunks}")


def _of_point(
    point: Point, where: str, text: str, title: str | None, words: Words, state: rows.State
) -> Iterator[Finding]:
    if point.chunk is None:
        yield Finding(where, "has no text")
        return
    chunk = point.chunk
    if zlib.crc32(chunk.text.encode()) != zlib.crc32(text[chunk.start : chunk.end].encode()):
        yield Finding(where, "has another text than its document")
    vector = point.vector
    if vector is None or vector.shape != (state.info.dimension,):
        yield Finding(where, "has no vector of the corpus's dimension")
    elif not abs(float(np.linalg.norm(vector)) - 1) <= _UNIT:
        yield Finding(where, "has a vector that is not of length 1")
    if state.info.analyser != ANALYSER:
        return  # they are searched by none
    terms = words.terms(body(title, chunk.text))
    indices = [] if point.words is None else point.words[0].tolist()
    if indices != words.of_query(body(title, chunk.text))[0].tolist():
        yield Finding(where, f"is indexed by other words than its {len(terms)}")
