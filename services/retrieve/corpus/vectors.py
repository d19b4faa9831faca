"""From prepared documents to documents that can be stored: vectors taken over, or made by embed.

A vector depends on the model and on the embedder's input alone. So of a document that is replaced
those chunks are not embedded again whose input is the same as before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.retrieve.corpus.chunk import TokenCounter, embedder_input
from services.retrieve.corpus.embedding import Embedded
from services.retrieve.corpus.prepare import Prepared
from services.retrieve.stores.base import CorpusStore, NewDocument, Vector
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.stores.sparse_vector import Sparse
from shared.errors import ApiError

# What embed answers about an input that it can't take, however often it is asked.
_AT_FAULT = frozenset({400, 413, 422})

Embed = Callable[[Sequence[str], CorpusInfo], Awaitable[Embedded]]


@dataclass(frozen=True, eq=False)
class Row:
    """The vectors of one chunk. dense: float32 [dimension]."""

    dense: Vector
    sparse: Sparse | None = None


def reusable(old: NewDocument, counter: TokenCounter, chunk_tokens: int) -> dict[str, Row]:
    """The vectors of a stored document by the embedder's input that they were made of.

    counter, chunk_tokens: of the corpus that it is stored in. They fit any document of any corpus
    whose vectors are of the same model.
    """
    return {
        embedder_input(old.title, one, counter, chunk_tokens): Row(
            old.vectors[place], old.sparse[place] if old.sparse is not None else None
        )
        for place, one in enumerate(old.chunks)
    }


async def with_vectors(
    documents: Sequence[Prepared],
    store: CorpusStore,
    stored: Mapping[str, object],
    counter: TokenCounter,
    embed: Embed,
) -> list[NewDocument | ApiError]:
    """The documents as `store` takes them, in order; an error in the place of one that embed
    refuses, which is found by asking for halves of what was refused.

    stored: the ids of those that are there in an older state. Raises what `embed` does for anything
    that is not one document's fault.
    """
    info = store.info

    def taken_over() -> dict[str, Row]:
        replaced = [one.id for one in documents if one.vectors is None and one.id in stored]
        rows: dict[str, Row] = {}
        for old in store.whole(replaced).values() if replaced else ():
            rows |= reusable(old, counter, info.chunk_tokens)
        return rows

    rows = await asyncio.to_thread(taken_over)
    faults = await _fill(rows, [one for one in documents if one.vectors is None], info, embed)
    return [faults[one.id] if one.id in faults else _new(one, rows, info) for one in documents]


async def _fill(
    rows: dict[str, Row], documents: Sequence[Prepared], info: CorpusInfo, embed: Embed
) -> dict[str, ApiError]:
    """Add what is missing to `rows`; the errors of documents that embed refuses."""
    missing = list(
        dict.fromkeys(text for one in documents for text in one.inputs if text not in rows)
    )
    if not missing:
        return {}
    try:
        made = await embed(missing, info)
    except ApiError as error:
        if error.status not in _AT_FAULT:
            raise
        if len(documents) == 1:
            message = f"embed refuses it: {error.message}"
            return {documents[0].id: ApiError(error.status, error.code, message)}
        half = len(documents) // 2
        faults = await _fill(rows, documents[:half], info, embed)
        return faults | await _fill(rows, documents[half:], info, embed)
    for place, text in enumerate(missing):
        rows[text] = Row(made.dense[place], made.sparse[place] if made.sparse else None)
    return {}


def _new(document: Prepared, rows: Mapping[str, Row], info: CorpusInfo) -> NewDocument:
    sparse: Sequence[Sparse] | None = None
    if document.vectors is not None:
        vectors, sparse = document.vectors, document.sparse if info.sparse else None
    else:
        found = [rows[text] for text in document.inputs]
        vectors = np.array([row.dense for row in found], np.float32).reshape(-1, info.dimension)
        if info.sparse:
            sparse = [row.sparse for row in found if row.sparse is not None]
    return NewDocument(
        id=document.id,
        content_hash=document.content_hash,
        title=document.title,
        url=document.url,
        format=document.format,
        metadata=document.metadata,
        text=document.text,
        chunks=document.chunks,
        vectors=vectors,
        readers=document.readers,
        sparse=sparse,
        outline=document.outline,
    )
