"""Documents with true vectors, for stores that are tested without a model."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.retrieve.stores.base import Metadata, NewChunk, NewDocument, Vector
from services.retrieve.stores.corpus import ModelStamp
from services.retrieve.stores.sparse_vector import Sparse

DIMENSION = 16
STAMP = ModelStamp("test-model", "0123456789ab-fp32", DIMENSION)


def vector_of(text: str) -> Vector:
    """A unit vector, float32 [16], that only this text has."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def document(
    document_id: str,
    texts: Sequence[str],
    title: str | None = None,
    metadata: Metadata | None = None,
    readers: tuple[str, ...] | None = None,
) -> NewDocument:
    """A document whose chunks are `texts`, each with `vector_of` it."""
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)]).tolist()
    chunks = [
        NewChunk(text, start, start + len(text), len(text.split()))
        for text, start in zip(texts, starts, strict=False)
    ]
    vectors = np.stack([vector_of(text) for text in texts])
    whole = "\n".join(texts)
    content_hash = hashlib.sha256(whole.encode()).hexdigest()
    return NewDocument(
        id=document_id,
        content_hash=content_hash,
        title=title,
        url=None,
        format="text",
        metadata=metadata or {},
        text=whole,
        chunks=chunks,
        vectors=vectors,
        readers=readers,
    )


def words_of(text: str) -> Sparse:
    """The words of a text, each as heavy as it is long; one that comes twice weighs no more."""
    weights = {zlib.crc32(word.encode()) >> 1: float(len(word)) for word in text.split()}
    tokens = sorted(weights)
    values = [weights[token] for token in tokens]
    return Sparse(np.array(tokens, np.int32), np.array(values, np.float32))


def weighed(plain: NewDocument) -> NewDocument:
    """A document for a corpus with sparse vectors: each chunk has `words_of` its text."""
    return replace(plain, sparse=[words_of(chunk.text) for chunk in plain.chunks])
