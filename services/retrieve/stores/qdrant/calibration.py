"""The average length that BM25 puts a chunk's length in proportion to.

Exact BM25 knows the corpus's average at every search; here it is part of the weights that are
stored. It is taken from the first write, and measured again each time that the corpus has doubled,
up to some thousand chunks, which tell it well enough: from then on it stays. Where it has moved by
more than half a hundredth, the weights of the chunks that are there are made anew. Of a few chunks
it is exact after every write. docs/operations/qdrant.md says how far scores are from exact ones.
"""

import sqlalchemy as sa

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.qdrant import rows
from services.retrieve.stores.qdrant.points import Points, keys_of
from services.retrieve.stores.qdrant.tables import DOCUMENTS, GENERATIONS
from services.retrieve.stores.qdrant.words import Weights, Words, body, of_chunk
from shared.errors import ApiError
from shared.telemetry import get_logger

SMALL = 64  # chunks up to which it is exact
ENOUGH = 4096  # chunks
_MOVED = 0.005
_PART = 64  # documents at a time

log = get_logger(__name__)


def calibrate(
    database: CatalogueDatabase, points: Points, words: Words, generation: int, state: rows.State
) -> None:
    """Measure the average again if it is time. What Qdrant refuses is put off to the next write.

    Words of another analyser stay as they are: these terms would get in among them."""
    if state.info.analyser != ANALYSER:
        return
    chunks = state.info.chunks
    small = 0 < chunks <= SMALL
    grown = chunks >= 2 * state.average_of and state.average_of < ENOUGH
    if not (small or grown) or not state.average or not state.terms:
        return
    average = state.terms / chunks
    try:
        if abs(average - state.average) > (0 if small else _MOVED) * state.average:
            _weigh_anew(database, points, words, generation, average)
        else:
            average = state.average
        with database.begin() as connection:
            connection.execute(
                sa.update(GENERATIONS)
                .where(GENERATIONS.c.id == generation)
                .values(average=average, average_of=chunks)
            )
    except ApiError as error:
        log.warning("calibration_put_off", corpus=state.info.name, reason=error.message)


def _weigh_anew(
    database: CatalogueDatabase, points: Points, words: Words, generation: int, average: float
) -> None:
    columns = (DOCUMENTS.c.number, DOCUMENTS.c.chunks, DOCUMENTS.c.title)
    with database.read() as connection:
        documents = list(rows.every(connection, generation, DOCUMENTS.c.number, *columns))
    for start in range(0, len(documents), _PART):
        weights: dict[int, Weights] = {}
        for document in documents[start : start + _PART]:
            found = points.read(keys_of(document.number, document.chunks), shown=True)
            for key, point in found.items():
                terms = words.terms(body(document.title, point.chunk.text)) if point.chunk else []
                if terms:
                    weights[key] = of_chunk(terms, average)
        points.put_words(weights)
