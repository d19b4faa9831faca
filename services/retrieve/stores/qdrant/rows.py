"""What the catalogue says of one generation: its settings and counts, its documents.

Every function takes a connection within a transaction of its caller's; reading takes one statement
each, which sees one state in every database.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.retrieve.stores.base import Metadata, Scope
from services.retrieve.stores.corpus import CorpusInfo, Preferences, RecencyDefault
from services.retrieve.stores.outline import Mark, Outline
from services.retrieve.stores.qdrant.tables import CORPORA, DOCUMENTS, GENERATIONS
from shared.errors import ApiError

_MOST = 5000  # values of an IN; SQLite takes 32,766 parameters
_D = DOCUMENTS.c
_NUL = "\0"  # no text of PostgreSQL holds it


@dataclass(frozen=True)
class State:
    """A generation as it is now. place: what of its corpus it is; None: nothing any more."""

    info: CorpusInfo
    collection: str
    place: str | None  # "live", "dark" or "previous"
    made_at: datetime
    terms: int
    average: float
    average_of: int
    sealed_until: float

    @property
    def writable(self) -> bool:
        """Whether it may be written at all."""
        return self.place in ("live", "dark")


@dataclass(frozen=True, slots=True)
class Live:
    """A live document without its text. `number` is that of its points."""

    number: int
    id: str
    title: str | None
    url: str | None
    chunks: int
    metadata: Metadata
    readers: tuple[str, ...] | None
    updated_at: datetime

    def within(self, scope: Scope) -> bool:
        """Whether the document is in the scope."""
        return scope.sees(self.metadata, self.readers)


def state(connection: sa.Connection, generation: int, name: str) -> State:
    """Raises ApiError 404 `corpus_not_found` where the generation is no more."""
    row = connection.execute(
        sa.select(GENERATIONS, CORPORA)
        .join(CORPORA, CORPORA.c.name == GENERATIONS.c.corpus)
        .where(GENERATIONS.c.id == generation)
        .set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL)
    ).one_or_none()
    if row is None:
        raise ApiError(404, "corpus_not_found", f"corpus '{name}' was deleted or closed meanwhile")
    return state_of(row._mapping)


def state_of(row: Any) -> State:
    """The state of a row of both tables."""
    g = {column.name: row[f"qdrant_generations_{column.name}"] for column in GENERATIONS.c}
    c = {column.name: row[f"qdrant_corpora_{column.name}"] for column in CORPORA.c}
    places = {c["previous"]: "previous", c["dark"]: "dark", c["live"]: "live"}
    info = CorpusInfo(
        name=c["name"],
        description=c["description"],
        language=g["language"],
        model=g["model"],
        revision=g["revision"],
        dimension=g["dimension"],
        chunk_tokens=g["chunk_tokens"],
        chunk_overlap=g["chunk_overlap"],
        curate=c["curate"],
        chunker=g["chunker"],
        documents=g["documents"],
        chunks=g["chunks"],
        writes=g["writes"],
        created_at=datetime.fromisoformat(c["created_at"]),
        sparse=g["sparse"],
        recency=RecencyDefault(**json.loads(c["recency"])) if c["recency"] else None,
        readers=names_in(c["readers"]),
        generation=g["number"],
        engine="qdrant",
        analyser=g["analyser"],
    )
    return State(
        info=info,
        collection=g["collection"],
        place=places.get(g["id"]),
        made_at=datetime.fromisoformat(g["made_at"]),
        terms=g["terms"],
        average=g["average"],
        average_of=g["average_of"],
        sealed_until=g["sealed_until"],
    )


def preferences_row(preferences: Preferences) -> dict[str, Any]:
    """The columns of `qdrant_corpora` that hold preferences."""
    return {
        "description": storable(preferences.description),
        "curate": preferences.curate,
        "recency": json.dumps(asdict(preferences.recency)) if preferences.recency else None,
        "readers": names_row(preferences.readers),
    }


def names_row(names: Sequence[str] | None) -> str | None:
    """A list of names as a column, which tells None from no names."""
    return None if names is None else json.dumps(list(names), ensure_ascii=False)


def names_in(stored: str | None) -> tuple[str, ...] | None:
    """The names of `names_row`."""
    return None if stored is None else tuple(json.loads(stored))


def storable(text: str) -> str:
    """A text of the same length that every database takes."""
    return text.replace(_NUL, "\ufffd")


def outline_row(outline: Outline) -> str:
    """An outline as a column."""
    marks = [[mark.kind, mark.start, mark.end, mark.name, mark.number] for mark in outline]
    return json.dumps(marks, ensure_ascii=False)


def outline_in(stored: str) -> Outline:
    """The outline of `outline_row`."""
    return tuple(Mark(*mark) for mark in json.loads(stored))


_LIVE = (
    _D.number, _D.id, _D.title, _D.url, _D.chunks, _D.metadata, _D.readers, _D.updated_at
)  # fmt: skip


def live(connection: sa.Connection, generation: int, numbers: Iterable[int]) -> dict[int, Live]:
    """The live documents among some numbers."""
    found: dict[int, Live] = {}
    for part in parts(sorted(set(numbers))):
        rows = connection.execute(
            sa.select(*_LIVE).where(_D.generation == generation, _D.number.in_(part))
        )
        found |= {row.number: _live(row) for row in rows}
    return found


def of_ids(
    connection: sa.Connection, generation: int, ids: Sequence[str], *columns: sa.Column[Any]
) -> dict[str, Any]:
    """Rows of documents by their ids, with these columns and the id; unknown ones are absent."""
    found: dict[str, Any] = {}
    for part in parts(sorted({one for one in ids if _NUL not in one})):
        rows = connection.execute(
            sa.select(_D.id, *columns).where(_D.generation == generation, _D.id.in_(part))
        )
        found |= {row.id: row for row in rows}
    return found


def page(
    connection: sa.Connection, generation: int, after: str | None, prefix: str, limit: int
) -> list[Live]:
    """Documents in the order of their ids, those after `after` that begin with `prefix`."""
    if _NUL in prefix:
        return []
    query = sa.select(*_LIVE).where(_D.generation == generation)
    if after is not None:
        # No id holds the NUL, so that none is between.
        query = query.where(_D.id > after.partition(_NUL)[0])
    if prefix:
        query = query.where(_D.id >= prefix)
        ending = _after_prefix(prefix)
        if ending is not None:
            query = query.where(_D.id < ending)
    return [_live(row) for row in connection.execute(query.order_by(_D.id).limit(limit))]


def every(
    connection: sa.Connection, generation: int, order: sa.Column[Any], *columns: sa.Column[Any]
) -> Iterator[Any]:
    """Columns of all documents in an order; one state, however long it is read."""
    query = sa.select(*columns).where(_D.generation == generation).order_by(order)
    yield from connection.execution_options(stream_results=True, yield_per=1000).execute(query)


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Values in as many parts as a statement takes at a time."""
    for start in range(0, len(values), _MOST):
        yield values[start : start + _MOST]


def _live(row: Any) -> Live:
    return Live(
        number=row.number,
        id=row.id,
        title=row.title,
        url=row.url,
        chunks=row.chunks,
        metadata=json.loads(row.metadata),
        readers=names_in(row.readers),
        updated_at=datetime.fromisoformat(row.updated_at),
    )


def _after_prefix(prefix: str) -> str | None:
    """The first text after all that begin with a prefix; None where there is none."""
    while prefix:
        following = ord(prefix[-1]) + 1
        if following <= 0x10FFFF:
            # No text holds half of a surrogate pair.
            return prefix[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
        prefix = prefix[:-1]
    return None
