"""Documents as they were sent: texts of JSON and files, and what tells one state from another."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.retrieve.corpus.parsing.parse import PARSER
from services.retrieve.corpus.protocol import Document, GivenChunk
from services.retrieve.stores.base import DocumentFormat, Metadata, Vector
from services.retrieve.stores.corpus import ModelStamp
from services.retrieve.stores.sparse_vector import Sparse
from shared.errors import ApiError


@dataclass(frozen=True, eq=False)
class Given:
    """Chunks that came with their vectors. spans: character offsets into the text. vectors:
    float32 [n, dimension], as they were sent. stamp: what made them."""

    spans: Sequence[tuple[int, int]]
    vectors: Vector
    sparse: Sequence[Sparse] | None
    stamp: ModelStamp

    def digest(self) -> str:
        """Hex SHA-256 of all of it."""
        found = hashlib.sha256(repr((self.spans, self.stamp)).encode())
        found.update(self.vectors.astype("<f4").tobytes())
        for one in self.sparse or ():
            found.update(one.tokens.astype("<i4").tobytes() + one.weights.astype("<f4").tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class SourceDocument:
    """A document as it was sent: `text` is in `format`, not parsed yet.

    `readers` are the keys and groups that may read it; None: whoever may read the corpus. With
    `given` chunks the text is what they were cut from.
    """

    id: str
    text: str
    title: str | None = None
    url: str | None = None
    format: DocumentFormat = "text"
    metadata: Metadata = field(default_factory=dict)
    readers: tuple[str, ...] | None = None
    given: Given | None = None


@dataclass(frozen=True)
class SourceFile:
    """A file as it was uploaded. `format` None: what it is found to be."""

    id: str
    name: str
    data: bytes
    title: str | None = None
    url: str | None = None
    format: DocumentFormat | None = None
    metadata: Metadata = field(default_factory=dict)
    readers: tuple[str, ...] | None = None


Source = SourceDocument | SourceFile


def source_document(sent: Document) -> SourceDocument:
    """A document of a request. Raises ApiError 422 naming what is wrong with vectors in it."""
    return SourceDocument(
        id=sent.id,
        text=sent.text,
        title=sent.title,
        url=sent.url,
        format=sent.format,
        metadata=sent.metadata,
        readers=None if sent.readers is None else tuple(sent.readers),
        given=_given(sent),
    )


def size(source: Source) -> int:
    """About how many bytes it has: for a text one for each character."""
    return len(source.data) if isinstance(source, SourceFile) else len(source.text)


def hash_of(source: Source) -> str:
    """The content hash of a document; see `content_hash`."""
    data = (
        source.data
        if isinstance(source, SourceFile)
        else source.text.encode("utf-8", "surrogatepass")
    )
    given = source.given if isinstance(source, SourceDocument) else None
    return content_hash(
        hashlib.sha256(data).hexdigest(),
        title=source.title,
        url=source.url,
        format=source.format,
        metadata=source.metadata,
        readers=source.readers,
        given=None if given is None else given.digest(),
    )


def content_hash(
    sha256: str,
    *,
    title: str | None,
    url: str | None,
    format: DocumentFormat | None,  # noqa: A002 - the name of the field
    metadata: Metadata,
    readers: Sequence[str] | None,
    given: str | None = None,
) -> str:
    """Hex SHA-256 over all that a stored document is made of, and how its bytes are read.

    sha256: of the raw bytes, before parsing, in hex, so that whoever has that of a file can ask
    whether the file has changed without sending it.
    """
    parts = [sha256, title, url, format, dict(metadata), readers, PARSER]
    if given is not None:
        parts.append(given)
    serialised = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(serialised.encode("utf-8", "surrogatepass")).hexdigest()


def _given(sent: Document) -> Given | None:
    if sent.chunks is None or sent.stamp is None:
        return None
    dimension = sent.stamp.dimension
    vectors = np.empty((len(sent.chunks), dimension), np.float32)
    sparse: list[Sparse] = []
    for place, one in enumerate(sent.chunks):
        try:
            vectors[place] = _vector(one, dimension)
            if one.sparse is not None:
                sparse.append(_sparse(one))
        except ValueError as error:
            where = f"chunks.{place}"
            message = f"{where} has a vector that can't be stored: {error}"
            raise ApiError(422, "bad_vector", message, param=where) from None
    if len(sparse) not in (0, len(sent.chunks)):
        message = "some chunks have sparse vectors and some have none: send them with all or none"
        raise ApiError(422, "bad_vector", message, param="chunks")
    return Given(
        [(one.start, one.end) for one in sent.chunks],
        vectors,
        sparse or None,
        ModelStamp(sent.stamp.model, sent.stamp.revision, dimension),
    )


def _vector(chunk: GivenChunk, dimension: int) -> Vector:
    """Raises ValueError for what is no vector of that dimension with a direction."""
    if isinstance(chunk.vector, str):
        data = base64.b64decode(chunk.vector, validate=True)
        vector = np.frombuffer(data, "<f4").astype(np.float64)
    else:
        vector = np.array(chunk.vector, np.float64)
    if vector.shape != (dimension,):
        raise ValueError(f"it has {vector.size} numbers, and its stamp says {dimension}")
    if not np.isfinite(vector).all():
        raise ValueError("it holds NaN or infinity")
    norm = float(np.linalg.norm(vector))
    if not (0 < norm < float("inf")):
        raise ValueError("it has no direction")
    return (vector / norm).astype(np.float32)


def _sparse(chunk: GivenChunk) -> Sparse:
    """Raises ValueError for what is no sparse vector."""
    assert chunk.sparse is not None  # noqa: S101 - for the type checker; the caller has looked
    with np.errstate(over="ignore"):
        return Sparse(
            np.array(chunk.sparse.indices, np.int32), np.array(chunk.sparse.values, np.float32)
        )
