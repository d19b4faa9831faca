"""The points of one collection: a chunk each, with its vectors and what is needed to show it.

A point's id is the chunk's key: the number of its document's version, which is never given twice,
and the chunk's place in it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from services.retrieve.stores.base import NewChunk, NewDocument, Vector
from services.retrieve.stores.outline import Place
from services.retrieve.stores.qdrant.filters import FACTS, payload_of
from services.retrieve.stores.qdrant.link import Link
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.words import Weights, of_chunk
from services.retrieve.stores.sparse_vector import Sparse

DENSE, WORDS, SPARSE = "dense", "words", "sparse"
MOST_CHUNKS = 2**20  # of a document

_TEXT, _START, _END, _TOKENS, _PLACE = SHOWN = ["text", "start", "end", "tokens", "place"]
_BATCH_BYTES = 8_000_000  # of a request; Qdrant takes 32 MB
_PAGE = 256  # points that are read or written at a time
# Vectors fetched by page, and scores by key: as many as still make a small request.
_KEYS = 2000
_OVERSAMPLED = 2.0  # hits by the bytes of vectors that are scored anew, for each that is wanted


def key_of(number: int, place: int) -> int:
    """The key of a chunk, by its document's number and its place in it."""
    return number * MOST_CHUNKS + place


def number_of(key: int) -> int:
    """The number of the document that a chunk is of."""
    return key // MOST_CHUNKS


def keys_of(number: int, chunks: int) -> range:
    """The keys of all chunks of a document."""
    return range(key_of(number, 0), key_of(number, chunks))


@dataclass(frozen=True)
class Point:
    """A chunk as it is read back; what was not asked for is None."""

    key: int
    chunk: NewChunk | None
    vector: Vector | None
    words: Weights | None
    sparse: Sparse | None


@dataclass(frozen=True)
class Asking:
    """One list to be searched: `using` names the vector, `exact` forbids the graph's shortcut."""

    using: str
    query: Vector | Weights
    limit: int
    condition: models.Filter | None = None
    exact: bool = False


def point_of(
    document: NewDocument, number: int, place: int, terms: list[str], average: float
) -> models.PointStruct:
    """The point of a document's chunk. `terms` are those of title and text."""
    chunk = document.chunks[place]
    vectors: dict[str, Any] = {DENSE: document.vectors[place].tolist()}
    if terms:
        vectors[WORDS] = _sparse(of_chunk(terms, average))
    if document.sparse is not None and len(document.sparse[place].tokens):
        vectors[SPARSE] = _sparse((document.sparse[place].tokens, document.sparse[place].weights))
    payload: dict[str, Any] = {
        _TEXT: chunk.text,
        _START: chunk.start,
        _END: chunk.end,
        _TOKENS: chunk.tokens,
        _PLACE: json.dumps(asdict(chunk.place), ensure_ascii=False),
        **payload_of(document.metadata, document.readers),
    }
    return models.PointStruct(id=key_of(number, place), vector=vectors, payload=payload)


class Points:
    """A collection. Every method raises what `Link.call` does."""

    def __init__(self, link: Link, collection: str) -> None:
        self._link = link
        self._client = link.client
        self.collection = collection
        self._indexed: set[str] = set()

    def make(self, dimension: int, *, sparse: bool) -> None:
        """Make the collection; nothing happens where it is there."""
        layout = self._link.layout
        sparse_vectors = {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)}
        if sparse:
            sparse_vectors[SPARSE] = models.SparseVectorParams()
        quantised = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
        with self._link.call("making a collection") as seconds:
            if not self._client.collection_exists(self.collection):
                self._client.create_collection(
                    self.collection,
                    # Unit vectors as they came: `Cosine` would normalise them once more.
                    vectors_config={
                        DENSE: models.VectorParams(
                            size=dimension, distance=models.Distance.DOT, on_disk=layout.on_disk
                        )
                    },
                    sparse_vectors_config=sparse_vectors,
                    shard_number=layout.shards,
                    replication_factor=layout.replicas,
                    write_consistency_factor=layout.consistency,
                    on_disk_payload=True,
                    quantization_config=quantised if layout.quantised else None,
                    timeout=seconds,
                )
        self.index(FACTS, models.PayloadSchemaType.KEYWORD)

    def index(self, field: str, kind: models.PayloadSchemaType) -> None:
        """Have an index on a field of the payload; made once, at the first wish."""
        if field not in self._indexed:
            with self._link.call("indexing a field") as seconds:
                self._client.create_payload_index(
                    self.collection, field, kind, wait=True, timeout=seconds
                )
            self._indexed.add(field)

    def exists(self) -> bool:
        """Whether the collection is there."""
        with self._link.call("looking for a collection"):
            return bool(self._client.collection_exists(self.collection))

    def drop(self) -> None:
        """Remove the collection; no harm where there is none."""
        with self._link.call("removing a collection") as seconds:
            if self._client.collection_exists(self.collection):
                self._client.delete_collection(self.collection, timeout=seconds)

    def put(self, points: Iterator[models.PointStruct]) -> None:
        """Write points; they are stored on as many replicas as the settings ask for, and searched,
        before this returns."""
        batch: list[models.PointStruct] = []
        size = 0
        for point in points:
            batch.append(point)
            size += _size(point)
            if len(batch) >= _PAGE or size > _BATCH_BYTES:
                self._put(batch)
                batch, size = [], 0
        if batch:
            self._put(batch)

    def put_words(self, weights: Mapping[int, Weights]) -> None:
        """Give points that are there other weights of words."""
        points = [
            models.PointVectors(id=key, vector={WORDS: _sparse(one)})
            for key, one in weights.items()
        ]
        for start in range(0, len(points), _PAGE):
            with self._link.call("writing points") as seconds:
                self._client.update_vectors(
                    self.collection, points[start : start + _PAGE], wait=True, timeout=seconds
                )

    def remove(self, keys: Sequence[int]) -> None:
        """Remove points; no harm where there is none of a key."""
        for start in range(0, len(keys), _KEYS):
            with self._link.call("removing points") as seconds:
                self._client.delete(
                    self.collection,
                    models.PointIdsList(points=list(keys[start : start + _KEYS])),
                    wait=True,
                    timeout=seconds,
                )

    def read(
        self, keys: Sequence[int], *, shown: bool = False, vectors: Sequence[str] = ()
    ) -> dict[int, Point]:
        """The points of some keys, in their order; those that are not there are absent. shown: with
        the chunk; vectors: with these of its vectors."""
        found: dict[int, Point] = {}
        for start in range(0, len(keys), _PAGE):
            with self._link.call("reading points") as seconds:
                records = self._client.retrieve(
                    self.collection,
                    list(keys[start : start + _PAGE]),
                    with_payload=SHOWN if shown else False,
                    with_vectors=list(vectors) or False,
                    timeout=seconds,
                )
                found |= {point.key: point for point in map(_point, records)}
        return {key: found[key] for key in keys if key in found}

    def every(self) -> Iterator[Point]:
        """All points with all they have, by ascending key."""
        offset: Any = None
        while True:
            with self._link.call("reading points") as seconds:
                records, offset = self._client.scroll(
                    self.collection,
                    limit=_PAGE,
                    offset=offset,
                    with_payload=SHOWN,
                    with_vectors=True,
                    timeout=seconds,
                )
                page = list(map(_point, records))
            yield from page
            if offset is None:
                return

    def search(self, askings: Sequence[Asking]) -> list[list[tuple[int, float]]]:
        """Keys and scores for each asking, best first, equal scores by ascending key; all of it in
        one request."""
        if not askings:
            return []
        requests = [
            models.QueryRequest(
                query=_query(asking.query),
                using=asking.using,
                filter=asking.condition,
                limit=asking.limit,
                params=_params(asking),
                with_payload=False,
            )
            for asking in askings
        ]
        with self._link.call("searching") as seconds:
            answers = self._client.query_batch_points(self.collection, requests, timeout=seconds)
            return [
                sorted(
                    ((int(hit.id), float(hit.score)) for hit in answer.points),
                    key=lambda hit: (-hit[1], hit[0]),
                )
                for answer in answers
            ]

    def scores(self, using: str, query: Vector | Weights, keys: Sequence[int]) -> dict[int, float]:
        """The scores of chosen points; those that share no index with a sparse query are absent."""
        askings = [
            Asking(
                using,
                query,
                len(part),
                models.Filter(must=[models.HasIdCondition(has_id=list(part))]),
                exact=True,
            )
            for part in (keys[start : start + _KEYS] for start in range(0, len(keys), _KEYS))
        ]
        return {key: score for hits in self.search(askings) for key, score in hits}

    def _put(self, batch: list[models.PointStruct]) -> None:
        with self._link.call("writing points") as seconds:
            self._client.upsert(self.collection, batch, wait=True, timeout=seconds)


def _params(asking: Asking) -> models.SearchParams | None:
    """Vectors that are kept as bytes, too, would be scored by these unless Qdrant is told."""
    if asking.using != DENSE:
        return models.SearchParams(exact=True) if asking.exact else None
    if asking.exact:
        plain = models.QuantizationSearchParams(ignore=True)
        return models.SearchParams(exact=True, quantization=plain)
    anew = models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLED)
    return models.SearchParams(quantization=anew)


def _query(query: Vector | Weights) -> Any:
    return _sparse(query) if isinstance(query, tuple) else query.tolist()


def _sparse(weights: tuple[Any, Any]) -> models.SparseVector:
    indices, values = weights
    return models.SparseVector(indices=indices.tolist(), values=values.tolist())


def _point(record: models.Record) -> Point:
    payload = record.payload or {}
    vectors: Any = record.vector or {}
    chunk = None
    if _TEXT in payload:
        place = json.loads(payload[_PLACE])
        chunk = NewChunk(
            payload[_TEXT],
            int(payload[_START]),
            int(payload[_END]),
            int(payload[_TOKENS]),
            Place(
                tuple(place["headings"]),
                _pair(place["pages"]),
                place["code"],
                _pair(place["rows"]),
                _pair(place["bytes"]),
            ),
        )
    words, sparse = vectors.get(WORDS), vectors.get(SPARSE)
    return Point(
        key=int(record.id),
        chunk=chunk,
        vector=np.array(vectors[DENSE], np.float32) if DENSE in vectors else None,
        words=_weights(words, np.uint32) if words is not None else None,
        sparse=Sparse(*_weights(sparse, np.int32)) if sparse is not None else None,
    )


def _weights(vector: models.SparseVector, kind: type[Any]) -> tuple[Any, Any]:
    """Ascending indices with their values."""
    indices = np.array(vector.indices, kind)
    order = np.argsort(indices)
    return indices[order], np.array(vector.values, np.float32)[order]


def _pair(stored: list[int] | None) -> tuple[int, int] | None:
    return None if stored is None else (stored[0], stored[1])


def _size(point: models.PointStruct) -> int:
    """About how many bytes a point takes in a request."""
    vectors: Any = point.vector
    numbers = len(vectors[DENSE]) + sum(
        2 * len(vectors[name].indices) for name in (WORDS, SPARSE) if name in vectors
    )
    payload = point.payload or {}
    facts = sum(len(fact) for fact in payload[FACTS])
    return 12 * numbers + 2 * (len(payload[_TEXT]) + facts) + 200
