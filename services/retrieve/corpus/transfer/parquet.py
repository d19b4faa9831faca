"""Exports as Parquet: a row for each document, with its chunks as a list within the row.

So a row is the same unit as everywhere else, a document, and a text is stored once and not with
each of its chunks. Metadata is JSON in a text, as its keys are whatever they are. The vectors'
stamp is in the file's own metadata under `refdesk.stamp`, and their lists are of fixed size.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson

from services.retrieve.corpus.transfer.export import record
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import ModelStamp
from shared.errors import ApiError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CONTENT_TYPE = "application/vnd.apache.parquet"
_ROWS = 128  # documents in a row group, which is held in memory
_READ = 16  # rows at a time, fewer of row groups in which a few may be all of these bytes
_READ_BYTES = 64 * 1024 * 1024
_STAMP = b"refdesk.stamp"


def pack(
    documents: Iterator[NewDocument], stamp: ModelStamp | None, *, sparse: bool
) -> Iterator[bytes]:
    """A Parquet file of some documents, part by part.

    stamp: of the vectors, which are left out where it is None. sparse: whether there are sparse
    ones, too. Raises ApiError 501 `no_parquet` where the extra that it takes is not installed.
    """
    pa = require_parquet()
    return _pack(pa, documents, stamp, sparse=sparse)


def rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The documents of a Parquet file as POST …/ingest takes them in JSON.

    Columns are the fields of a document; `metadata` may be JSON as text, vectors may be lists of
    numbers. What is null is left out. Raises ApiError 422 `broken_file` for what is no Parquet
    file, 501 `no_parquet` where the extra that it takes is not installed.
    """
    pa = require_parquet()
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            stamp = _stamp_of(opened.schema_arrow)
            for batch in opened.iter_batches(batch_size=_rows_at_once(opened)):
                yield from _documents(batch, stamp)
    except (
        pa.ArrowException,
        OSError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        message = f"this can't be read as a Parquet file of documents: {error}"
        raise ApiError(422, "broken_file", message) from None


def require_parquet() -> Any:
    """The library. Raises ApiError 501 `no_parquet` where it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise ApiError(
            501,
            "no_parquet",
            "this refdesk can't read or write Parquet: install its extra `parquet` "
            "(in its folder: `pip install -e '.[parquet]'`), or use NDJSON",
        ) from None
    return pyarrow


# --- writing ----------------------------------------------------------------------------------


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def _pack(
    pa: Any, documents: Iterator[NewDocument], stamp: ModelStamp | None, *, sparse: bool
) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    schema, sink = _schema(pa, stamp, sparse=sparse), _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while part := list(islice(documents, _ROWS)):
            writer.write_table(_table(pa, schema, part, stamp))
            yield sink.taken()
    yield sink.taken()


def _schema(pa: Any, stamp: ModelStamp | None, *, sparse: bool) -> "pa.Schema":
    text = pa.string()
    fields = [
        pa.field("id", text, nullable=False),
        pa.field("text", text, nullable=False),
        pa.field("title", text),
        pa.field("url", text),
        pa.field("format", text, nullable=False),
        pa.field("metadata", text, nullable=False),
        pa.field("readers", pa.list_(text)),
    ]
    if stamp is None:
        return pa.schema(fields)
    chunk = [
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), stamp.dimension), nullable=False),
    ]
    if sparse:
        words = [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
        chunk.append(pa.field("sparse", pa.struct(words)))
    fields.append(pa.field("chunks", pa.list_(pa.struct(chunk)), nullable=False))
    told = {"model": stamp.model, "revision": stamp.revision, "dimension": stamp.dimension}
    return pa.schema(fields, metadata={_STAMP: orjson.dumps(told)})


def _table(
    pa: Any, schema: "pa.Schema", documents: Sequence[NewDocument], stamp: ModelStamp | None
) -> "pa.Table":
    columns: dict[str, Any] = {name: [] for name in schema.names if name != "chunks"}
    for document in documents:
        # With a stamp that is only looked at: the vectors below are never numbers of Python's.
        found = record(document, None) | ({"format": document.format} if stamp else {})
        found["metadata"] = orjson.dumps(found["metadata"]).decode()
        for name, column in columns.items():
            column.append(found[name])
    arrays = [pa.array(column, schema.field(name).type) for name, column in columns.items()]
    if stamp is not None:
        arrays.append(_chunks(pa, schema.field("chunks").type, documents))
    return pa.Table.from_arrays(arrays, schema=schema)


def _chunks(pa: Any, wanted: "pa.ListType", documents: Sequence[NewDocument]) -> "pa.ListArray":
    chunk = wanted.value_type
    counts = [len(document.chunks) for document in documents]
    spans = [one for document in documents for one in document.chunks]
    numbers = np.concatenate([document.vectors for document in documents]).astype("<f4").ravel()
    children = [
        pa.array([one.start for one in spans], pa.int64()),
        pa.array([one.end for one in spans], pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=chunk.field("vector").type),
    ]
    if chunk.get_field_index("sparse") >= 0:
        words = [
            {"indices": one.tokens.tolist(), "values": one.weights.tolist()}
            for document in documents
            for one in document.sparse or ()
        ]
        children.append(pa.array(words, chunk.field("sparse").type))
    offsets = pa.array(np.cumsum([0, *counts]), pa.int32())
    entries = pa.StructArray.from_arrays(children, fields=list(chunk))
    return pa.ListArray.from_arrays(offsets, entries, type=wanted)


# --- reading ----------------------------------------------------------------------------------


def _rows_at_once(file: "pq.ParquetFile") -> int:
    """A text that stands in a file once may be that of any number of rows, and is as large as its
    row group at most."""
    groups = range(file.num_row_groups)
    largest = max((file.metadata.row_group(n).total_byte_size for n in groups), default=0)
    return max(1, min(_READ, _READ_BYTES // max(1, largest)))


def _stamp_of(schema: "pa.Schema") -> dict[str, Any] | None:
    told = (schema.metadata or {}).get(_STAMP)
    stamp = orjson.loads(told) if told else None
    return stamp if isinstance(stamp, dict) else None


def _documents(batch: "pa.RecordBatch", stamp: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    plain = batch.select([name for name in batch.schema.names if name != "chunks"]).to_pylist()
    chunks = _chunk_lists(batch) if "chunks" in batch.schema.names else None
    for place, row in enumerate(plain):
        found = {name: value for name, value in row.items() if value is not None}
        if "metadata" in found:
            found["metadata"] = _metadata(found["metadata"])
        if chunks is not None and chunks[place] is not None:
            found["chunks"] = chunks[place]
            if stamp is not None:
                found.setdefault("stamp", stamp)
        yield found


def _metadata(value: Any) -> Any:
    """From JSON as text, or from a struct or a map, in which null stands for nothing."""
    if isinstance(value, str):
        return orjson.loads(value)
    pairs = value if isinstance(value, list) else value.items()
    return {name: one for name, one in pairs if one is not None}


def _chunk_lists(batch: "pa.RecordBatch") -> list[list[dict[str, Any]] | None]:
    """The chunks of each document, vectors as base64 where they are float32."""
    column = batch.column("chunks")
    vectors = _packed_vectors(column)
    if vectors is None:
        return list(column.to_pylist())
    kept = [field.name for field in column.type.value_type if field.name != "vector"]
    entries = column.flatten()
    told = [
        {name: value for name, value in zip(kept, values, strict=True) if value is not None}
        for values in zip(*(entries.field(name).to_pylist() for name in kept), strict=True)
    ]
    whole = [{**one, "vector": vector} for one, vector in zip(told, vectors, strict=True)]
    found: list[list[dict[str, Any]] | None] = []
    at = 0
    for count in column.value_lengths().to_pylist():
        found.append(None if count is None else whole[at : at + count])
        at += count or 0
    return found


def _packed_vectors(column: Any) -> list[str] | None:
    """All vectors of a batch, None where they are not stored as we store them."""
    entries = column.flatten()
    place = entries.type.get_field_index("vector")
    if place < 0 or entries.null_count:
        return None
    vectors = entries.field(place)
    size = getattr(vectors.type, "list_size", 0)
    if size < 1 or vectors.null_count or str(vectors.type.value_type) != "float":
        return None
    numbers = vectors.flatten().to_numpy(zero_copy_only=False).astype("<f4")
    return [base64.b64encode(one.tobytes()).decode() for one in numbers.reshape(-1, size)]
