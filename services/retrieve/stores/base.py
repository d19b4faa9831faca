"""The store of a corpus: what every engine (local files, Qdrant) must offer, and mean by it.

Contract, for every implementation of `CorpusStore`
---------------------------------------------------
*Keys.* A chunk has an integer key, unique in its corpus and never used again: a key that outlives
its document finds nothing. A chunk's id is `"{document_id}#{number}"`, numbers count from 0.

*Writes.* `write` and `delete` are all or nothing, and durable before they return (they survive
`kill -9` and a power cut). A document is replaced whole. Once a write has returned, every search
that starts sees it. Each write that changed something raises `info.generation` by one. Writes are
serialised inside the store.

*Reads.* A search gives keys, `fetch` gives their chunks. Between the two a document may be replaced
or deleted: its old keys are then absent from `fetch`, never answered with another chunk's text.

*Scores.* `bm25` is Okapi BM25 (k1 1.2, b 0.75) over title and text, `dense` is the cosine of unit
vectors. Lists are best first, equal scores by ascending key. `bm25_scores` and `dense_scores` give
for the same query the very scores that the lists give, for chosen keys: a chunk that holds no term
of the query has BM25 score 0.0 (and is never in the list), an unknown key is absent.

*Errors.* `ApiError` 507 `storage_full` (nothing was changed) and 500 `corpus_damaged` (names the
file). To find nothing is no error: an empty corpus gives empty lists.

*Threads.* Every method is synchronous and may be called from any thread (`asyncio.to_thread`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

JsonScalar = str | int | float | bool
Metadata = Mapping[str, JsonScalar | list[str]]
Vector = NDArray[np.float32]
DocumentFormat = Literal["text", "markdown", "html"]


@dataclass(frozen=True)
class ModelStamp:
    """The embedding model that made a corpus's vectors: name, weights' revision, dimension."""

    model: str
    revision: str
    dimension: int


@dataclass(frozen=True)
class CorpusSpec:
    """What the owner of a corpus chooses when it is created; fixed from then on.

    `language` is an ISO 639-1 code and picks the analyser of the words; `chunk_tokens` bounds what
    is sent to the embedder for one chunk (title line and special tokens included), `chunk_overlap`
    is the number of tokens that two neighbouring chunks may share.
    """

    name: str
    description: str = ""
    language: str = "en"
    chunk_tokens: int = 256
    chunk_overlap: int = 32


@dataclass(frozen=True)
class CorpusInfo:
    """A corpus as it is now. `chunker` names the method and version that cut its chunks."""

    name: str
    description: str
    language: str
    model: str
    revision: str
    dimension: int
    chunk_tokens: int
    chunk_overlap: int
    chunker: str
    documents: int
    chunks: int
    generation: int
    created_at: datetime

    @property
    def stamp(self) -> ModelStamp:
        """The model whose vectors this corpus holds."""
        return ModelStamp(self.model, self.revision, self.dimension)


@dataclass(frozen=True)
class NewChunk:
    """A chunk to be written: `text` is `document.text[start:end]`, `tokens` is what it costs."""

    text: str
    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class NewDocument:
    """A document to be written, parsed, chunked and embedded.

    `vectors` is float32 [len(chunks), dimension] of unit rows. `content_hash` (hex SHA-256) covers
    everything that the stored form depends on.
    """

    id: str
    content_hash: str
    title: str | None
    url: str | None
    format: DocumentFormat
    metadata: Metadata
    text: str
    chunks: Sequence[NewChunk]
    vectors: Vector


@dataclass(frozen=True)
class ChunkRecord:
    """A stored chunk with its document's description.

    `start` and `end` are character offsets into the document's parsed text, `number` of `count` is
    its place in the document (from 0), `tokens` counts `text` alone, without special tokens.
    """

    key: int
    id: str
    document_id: str
    title: str | None
    url: str | None
    text: str
    tokens: int
    start: int
    end: int
    number: int
    count: int
    metadata: Metadata


@dataclass(frozen=True)
class DocumentSummary:
    """A line of the list of documents. `chunks` is a count."""

    id: str
    title: str | None
    url: str | None
    chunks: int
    updated_at: datetime


@dataclass(frozen=True)
class StoredDocument:
    """A whole document. `text` is the parsed text, `version` counts its writes from 1."""

    id: str
    title: str | None
    url: str | None
    format: DocumentFormat
    metadata: Metadata
    text: str
    chunks: int
    version: int
    updated_at: datetime


@dataclass(frozen=True)
class DocumentResult:
    """What a write did to one document. `chunks` is the count it has now."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    chunks: int


@dataclass(frozen=True)
class WriteResult:
    """What a write did, in the order of the request, and the corpus's counts after it."""

    results: Sequence[DocumentResult]
    documents: int
    chunks: int
    generation: int


@dataclass(frozen=True)
class KnownDocument:
    """What is needed to see that a document did not change."""

    content_hash: str
    chunks: int


class CorpusStore(Protocol):
    """One open corpus; the module's docstring is its contract."""

    @property
    def info(self) -> CorpusInfo:
        """The corpus's settings, stamp, counts and generation."""
        ...

    def bm25(self, query: str, limit: int) -> list[tuple[int, float]]:
        """At most `limit` (key, raw BM25 score > 0) of the chunks that hold a term of `query`."""
        ...

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """The BM25 scores of the given chunks; 0.0 where no term matches."""
        ...

    def dense(self, vector: Vector, limit: int) -> list[tuple[int, float]]:
        """At most `limit` (key, cosine) nearest to `vector`, a unit float32 [dimension].

        Raises `ValueError` where the vector has another dimension or is not finite.
        """
        ...

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """The cosines of the given chunks to `vector`. Raises `ValueError` as `dense` does."""
        ...

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """The chunks with these keys, in the order of `keys`; missing keys are absent."""
        ...

    def query_terms(self, query: str) -> list[str]:
        """The distinct terms of `query` as the word index sees them, in order of appearance."""
        ...

    def text_terms(self, text: str) -> set[str]:
        """The terms of a text as the word index sees them."""
        ...

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """Content hash and chunk count of those of the documents that are stored."""
        ...

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """Create or replace documents (distinct ids), all or none of them.

        Raises `ValueError` where vectors do not fit the chunks or the corpus's dimension.
        """
        ...

    def delete(self, document_id: str) -> bool:
        """Remove a document with its chunks; False where there is no such document."""
        ...

    def documents(self, limit: int, after: str | None) -> list[DocumentSummary]:
        """At most `limit` documents in the order of their ids, those after id `after`."""
        ...

    def document(self, document_id: str) -> StoredDocument | None:
        """A document with its parsed text, or None."""
        ...

    def close(self) -> None:
        """Release files and memory. Nothing may be called afterwards; closing twice is harmless."""
        ...
