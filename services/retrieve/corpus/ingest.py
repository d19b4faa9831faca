"""The way of documents into a corpus: parse, see what changed, chunk, embed, write."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import CHUNKER, TokenCounter, chunk, title_line
from services.retrieve.corpus.embedding import Embedded, Librarian
from services.retrieve.corpus.fill import TokenFill
from services.retrieve.corpus.parse import ParsedDocument, parse
from services.retrieve.stores.base import (
    CorpusInfo,
    CorpusSpec,
    CorpusStore,
    DocumentFormat,
    DocumentResult,
    Metadata,
    NewChunk,
    NewDocument,
    WriteResult,
)
from shared.context import current
from shared.errors import ApiError


@dataclass(frozen=True)
class SourceDocument:
    """A document as it was sent: `text` is in `format`, not parsed yet.

    `readers` are the keys and groups that may read it; None: whoever may read the corpus.
    """

    id: str
    text: str
    title: str | None = None
    url: str | None = None
    format: DocumentFormat = "text"
    metadata: Metadata = field(default_factory=dict)
    readers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Prepared:
    """A changed document, ready but for its vectors; `inputs` is what the embedder gets."""

    source: SourceDocument
    content_hash: str
    parsed: ParsedDocument
    chunks: list[NewChunk]
    inputs: list[str]


class Ingest:
    """Writes to the corpora of a catalog. Requests may overlap; the last to write wins.

    fill: gets the chunks that were stored, None where the curator should first see them in a
    search.
    """

    def __init__(
        self, catalog: Catalog, librarian: Librarian, fill: TokenFill | None = None
    ) -> None:
        self._catalog = catalog
        self._librarian = librarian
        self._fill = fill
        # Ingests wait here rather than in threads, of which there are few and searches need some:
        # parsing is one at a time (it holds the interpreter anyway), as are a corpus's writes.
        self._preparing = asyncio.Lock()
        self._writing: dict[str, asyncio.Lock] = {}

    async def create(self, spec: CorpusSpec) -> tuple[CorpusInfo, bool]:
        """Make an empty corpus for the model that embed serves; False if it was there already.

        It has sparse vectors where the model makes them.
        Raises ApiError: 422 where chunks would be longer than the model reads or the language is
        unknown, what `Catalog.create` raises, 503 where embed does not answer.
        """
        served = await self._librarian.served()
        if spec.chunk_tokens > served.max_tokens:
            raise ApiError(
                422,
                "chunk_too_long",
                f"chunk_tokens is {spec.chunk_tokens}, and {served.stamp.model} reads at most "
                f"{served.max_tokens} tokens: ask for {served.max_tokens} or fewer",
                param="chunk_tokens",
            )
        return await asyncio.to_thread(
            self._catalog.create, spec, served.stamp, sparse=served.sparse
        )

    async def write(self, corpus: str, documents: Sequence[SourceDocument]) -> WriteResult:
        """Store documents (distinct ids), all or none; durable and searchable when it returns.

        A document that is stored as it is already is left alone ("unchanged"). Raises ApiError: 404
        for an unknown corpus, 415 or 422 naming the document that can't be taken, 409
        `model_mismatch` or `chunker_mismatch` where the corpus was made with another model or
        chunker, 502 `bad_upstream`, 503, 504, 507. Nothing is written then.
        """
        store = self._catalog.get(corpus)
        _require_chunker(store.info)
        counter = await self._librarian.counter(store.info)
        async with self._preparing:
            unchanged, prepared = await asyncio.to_thread(_prepare, store, documents, counter)
        inputs = [text for document in prepared for text in document.inputs]
        vectors = await self._librarian.vectors(inputs, store.info)
        async with self._writing.setdefault(corpus, asyncio.Lock()):
            result = await asyncio.to_thread(_write, store, documents, unchanged, prepared, vectors)
        if self._fill is not None:
            self._fill.add(inputs)
        return result

    async def delete(self, corpus: str, document_id: str) -> bool:
        """Remove a document; False where there is none. Raises ApiError 404 (corpus), 507."""
        store = self._catalog.get(corpus)
        async with self._writing.setdefault(corpus, asyncio.Lock()):
            return await asyncio.to_thread(store.delete, document_id)


def _require_chunker(info: CorpusInfo) -> None:
    """Raise ApiError 409 where the corpus's chunks were cut by another method than today's."""
    if info.chunker != CHUNKER:
        raise ApiError(
            409,
            "chunker_mismatch",
            f"corpus '{info.name}' was cut by {info.chunker}, and this refdesk cuts by {CHUNKER}: "
            "load the documents into a new corpus",
        )


def _prepare(
    store: CorpusStore, documents: Sequence[SourceDocument], counter: TokenCounter
) -> tuple[dict[str, DocumentResult], list[_Prepared]]:
    """The verdicts on documents that did not change, and all others parsed and chunked.

    Raises ApiError 504 once the request's deadline has passed.
    """
    info = store.info
    known = store.known([document.id for document in documents])
    unchanged: dict[str, DocumentResult] = {}
    prepared: list[_Prepared] = []
    for place, source in enumerate(documents):
        current().deadline.check()  # a thread can't be cancelled: it must see for itself
        content_hash = _content_hash(source, info)
        stored = known.get(source.id)
        if stored is not None and stored.content_hash == content_hash:
            unchanged[source.id] = DocumentResult(source.id, "unchanged", stored.chunks)
            continue
        parsed = parse(source.text, source.format, source.title, param=f"documents.{place}.text")
        chunks = chunk(parsed.text, parsed.title, counter, info.chunk_tokens, info.chunk_overlap)
        line = title_line(parsed.title, counter, info.chunk_tokens)
        inputs = [line + part.text for part in chunks]
        prepared.append(_Prepared(source, content_hash, parsed, chunks, inputs))
    return unchanged, prepared


def _write(
    store: CorpusStore,
    documents: Sequence[SourceDocument],
    unchanged: dict[str, DocumentResult],
    prepared: Sequence[_Prepared],
    vectors: Embedded,
) -> WriteResult:
    ends = np.cumsum([len(document.chunks) for document in prepared])
    new = [
        NewDocument(
            id=document.source.id,
            content_hash=document.content_hash,
            title=document.parsed.title,
            url=document.source.url,
            format=document.source.format,
            metadata=document.source.metadata,
            text=document.parsed.text,
            chunks=document.chunks,
            vectors=vectors.dense[end - len(document.chunks) : end],
            readers=document.source.readers,
            sparse=vectors.sparse and vectors.sparse[end - len(document.chunks) : end],
        )
        for document, end in zip(prepared, ends, strict=True)
    ]
    written = store.write(new)
    verdicts = unchanged | {result.id: result for result in written.results}
    return WriteResult(
        results=[verdicts[document.id] for document in documents],
        documents=written.documents,
        chunks=written.chunks,
        writes=written.writes,
    )


def _content_hash(source: SourceDocument, info: CorpusInfo) -> str:
    """Hex SHA-256 over all that a stored document is made of, the chunker's name among it."""
    parts: list[object] = [
        source.text,
        source.title,
        source.url,
        source.format,
        dict(source.metadata),
        info.chunker,
    ]
    if source.readers is not None:  # documents without readers keep the hash that they always had
        parts.append(source.readers)
    serialised = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(serialised.encode("utf-8", "surrogatepass")).hexdigest()
