"""The store of a corpus: what every engine (local files, Qdrant) must offer, and mean by it.

Contract, for every implementation of `CorpusStore`
---------------------------------------------------
*Keys.* A chunk has an integer key, unique in its corpus and never used again: a key that outlives
its document finds nothing. A chunk's id is `"{document_id}#{number}"`, numbers count from 0.

*Writes.* `write` and `delete` are all or nothing, and durable before they return (they survive
`kill -9` and a power cut). A document is replaced whole. Once a write has returned, every search
that starts sees it. Each write that changed something raises `info.writes` by one. Writes are
serialised inside the store.

*Generations.* A corpus is served from one generation of it, a reindex builds the next one beside it
(stores/engine.py). Once another generation has taken its place a store is retired: it still
answers reads, and every write raises `RetiredError`, to be done again on the store that is live.

*Reads.* A search gives keys, `fetch` gives their chunks. Between the two a document may be replaced
or deleted: its old keys are then absent from `fetch`, never answered with another chunk's text.

*Scopes.* A `Scope` says which documents a search may see: `Scope.sees` is what it means. A search
in a scope gives as many results as exist in it, up to its limit, none from outside, and each with
the score that it has without the scope. Metadata and readers of a document change only by being
replaced, so a key that was in a scope stays in it as long as it is found at all: what takes keys of
a search (`fetch`, `vectors`, `described`, `neighbours`, `extents`, the scores) needs no scope, what
finds documents does.

*Scores.* `bm25` is Okapi BM25 (k1 1.2, b 0.75) over title and text, `dense` is the cosine of unit
vectors, `sparse` the dot product of sparse vectors. Lists are best first, equal scores by ascending
key. `bm25_scores`, `dense_scores` and `sparse_scores` give for the same query the very scores that
the lists give, for chosen keys: a chunk that shares no term or token with the query has the BM25 or
sparse score 0.0 (and is never in the list), an unknown key is absent.

*Errors.* `ApiError` 507 `storage_full` (nothing was changed), 500 `corpus_damaged` (names the
file), and 503 `index_rebuilding` where an arm's index is built anew (`state.Rebuilt`). To find
nothing is no error: an empty corpus gives empty lists.

*Threads.* Every method is synchronous and may be called from any thread (`asyncio.to_thread`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.corpus import CorpusInfo, Preferences
from services.retrieve.stores.filters import Filter, Scalar, matches
from services.retrieve.stores.outline import NOWHERE, Outline, Place
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import Finding, Revision

JsonScalar = Scalar
Metadata = Mapping[str, JsonScalar | list[str]]
Vector = NDArray[np.float32]
DocumentFormat = Literal[
    "text", "markdown", "html", "pdf", "docx", "pptx", "xlsx", "csv", "json", "eml", "code"
]


@dataclass(frozen=True)
class Scope:
    """What a search may see; hashable.

    filter: what a document's metadata must pass. readers: names of which a document's own readers
    must hold one, if it has any; None sees every document.
    """

    filter: Filter | None = None
    readers: frozenset[str] | None = None

    def sees(self, metadata: Metadata, readers: Sequence[str] | None) -> bool:
        """Whether a document with this metadata and these readers is in the scope."""
        permitted = self.readers is None or readers is None or not self.readers.isdisjoint(readers)
        return permitted and (self.filter is None or matches(self.filter, metadata))


EVERYTHING = Scope()


@dataclass(frozen=True)
class NewChunk:
    """A chunk to be written: `text` is `document.text[start:end]`, `tokens` is what it costs."""

    text: str
    start: int
    end: int
    tokens: int
    place: Place = NOWHERE


@dataclass(frozen=True)
class NewDocument:
    """A document to be written, parsed, chunked and embedded.

    `vectors` is float32 [len(chunks), dimension] of unit rows; `sparse` are as many sparse vectors
    where the corpus has them, else None. `content_hash` (hex SHA-256) covers everything that the
    stored form depends on. `readers` are the keys and groups that may read it; None: whoever may
    read the corpus, empty: admins alone.

    Of a copy from another generation or engine, `version` and `updated_at` are those of what it was
    copied from; a document that was just sent has neither, which gives it the next version and the
    time of the write.
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
    readers: tuple[str, ...] | None = None
    sparse: Sequence[Sparse] | None = None
    outline: Outline = ()
    version: int | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class ChunkRecord:
    """A stored chunk with its document's description.

    `start` and `end` are character offsets into the document's parsed text, `number` of `count` is
    its place in the document (from 0), `tokens` counts `text` alone, without special tokens.
    `updated_at` is when the document was last written.
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
    updated_at: datetime
    readers: tuple[str, ...] | None = None
    place: Place = NOWHERE


@dataclass(frozen=True, slots=True)
class Described:
    """What a chunk's document says of it, without any text; see `ChunkRecord`."""

    metadata: Metadata
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a document, by character offsets into its parsed text."""

    document_id: str
    start: int
    end: int


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
    readers: tuple[str, ...] | None = None
    outline: Outline = ()


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
    writes: int


@dataclass(frozen=True)
class KnownDocument:
    """What is needed to see that a document did not change."""

    content_hash: str
    chunks: int


class CorpusStore(Protocol):
    """One open corpus; the module's docstring is its contract."""

    @property
    def info(self) -> CorpusInfo:
        """The corpus's settings, stamp and counts."""
        ...

    @property
    def dense_method(self) -> str:
        """How the dense arm searches, for people: `exact`, or the kind of its index."""
        ...

    def bm25(self, query: str, limit: int, scope: Scope = EVERYTHING) -> list[tuple[int, float]]:
        """At most `limit` (key, raw BM25 score > 0) of the chunks that hold a term of `query`."""
        ...

    def bm25_scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """The BM25 scores of the given chunks; 0.0 where no term matches."""
        ...

    def dense(
        self, vector: Vector, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, cosine) nearest to `vector`, a unit float32 [dimension].

        Raises `ValueError` where the vector has another dimension or is not finite.
        """
        ...

    def dense_scores(self, vector: Vector, keys: Sequence[int]) -> dict[int, float]:
        """The cosines of the given chunks to `vector`. Raises `ValueError` as `dense` does."""
        ...

    def sparse(
        self, vector: Sparse, limit: int, scope: Scope = EVERYTHING
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, dot product > 0) of the chunks that share a token with `vector`.

        Raises `ValueError` where the corpus has no sparse vectors.
        """
        ...

    def sparse_scores(self, vector: Sparse, keys: Sequence[int]) -> dict[int, float]:
        """The dot products of the given chunks with `vector`. Raises `ValueError` as `sparse`."""
        ...

    def fetch(self, keys: Sequence[int]) -> dict[int, ChunkRecord]:
        """The chunks with these keys, in the order of `keys`; missing keys are absent."""
        ...

    def vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        """The unit vectors, float32 [dimension], of the given chunks; unknown keys are absent."""
        ...

    def described(self, keys: Sequence[int]) -> dict[int, Described]:
        """Metadata and date of the given chunks' documents; unknown keys are absent.

        No text is read, and each document once.
        """
        ...

    def neighbours(
        self, keys: Sequence[int], reach: int | None
    ) -> dict[int, Sequence[ChunkRecord]]:
        """Of each chunk those of its document at most `reach` places away, itself too, in order.

        `reach` None gives all of the document; unknown keys are absent. A chunk that several of
        `keys` reach is read once.
        """
        ...

    def extents(self, keys: Sequence[int], reach: int | None) -> dict[int, Extent]:
        """From where to where `neighbours` would reach, without reading it; unknown are absent."""
        ...

    def in_scope(self, keys: Sequence[int], scope: Scope) -> set[int]:
        """Those of the given chunks that are in the scope; unknown keys are in none."""
        ...

    def keys_of(self, document_id: str) -> list[int]:
        """The keys of a document's chunks, in order; none where there is no such document."""
        ...

    def terms(self, text: str) -> list[str]:
        """The terms of a text as the word index sees them, in order, with repeats."""
        ...

    def bodies(self) -> Iterator[tuple[int, str]]:
        """What the words of every chunk are taken from: key, and title and text, by ascending key.

        One state of the corpus, whatever is written while it is read.
        """
        ...

    def known(self, document_ids: Sequence[str]) -> dict[str, KnownDocument]:
        """Content hash and chunk count of those of the documents that are stored."""
        ...

    def write(self, documents: Sequence[NewDocument]) -> WriteResult:
        """Create or replace documents (distinct ids), all or none of them.

        Raises `ValueError` where vectors do not fit the chunks or the corpus, and `RetiredError`.
        """
        ...

    def delete(self, document_ids: Sequence[str]) -> list[str]:
        """Remove documents with their chunks, all or none; the ids of those that were there, in the
        order asked. Raises `RetiredError`."""
        ...

    def configure(self, preferences: Preferences) -> CorpusInfo:
        """Change what may change at any time. Raises `RetiredError`."""
        ...

    def documents(
        self, limit: int, after: str | None, scope: Scope = EVERYTHING, prefix: str = ""
    ) -> list[DocumentSummary]:
        """At most `limit` documents in the order of their ids, those after id `after` whose ids
        begin with `prefix`."""
        ...

    def revisions(self) -> Iterator[Revision]:
        """Of every document its state, by ascending id; one state of the corpus, whatever is
        written while it is read."""
        ...

    def whole(self, document_ids: Sequence[str]) -> dict[str, NewDocument]:
        """Documents with their chunks and vectors, as `write` takes them, each of one state;
        unknown ones are absent. `version` and `updated_at` are the document's, which a copy that
        is written elsewhere keeps."""
        ...

    def sealed(self) -> AbstractContextManager[None]:
        """No write goes through while the block lasts: it waits, and `info` tells the last one,
        whichever process wrote it. After the block the store is retired; if the block raises, it
        goes on as before."""
        ...

    def verify(self) -> Iterator[Finding]:
        """Whatever disagrees between documents, chunks, vectors, checksums and indexes; reads all
        of it. Nothing for a sound corpus."""
        ...

    def document(self, document_id: str, scope: Scope = EVERYTHING) -> StoredDocument | None:
        """A document with its parsed text; None where there is none in the scope."""
        ...

    def close(self, *, keep: bool = True) -> None:
        """Release files and memory. Nothing may be called afterwards; closing twice is harmless.

        keep: whether the corpus will be opened again; False saves the work that serves only that.
        """
        ...
