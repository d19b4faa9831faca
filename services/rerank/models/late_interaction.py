"""Late interaction over the librarian's own model: the curator that needs no further weights.

relevance(q, d) = (1 + mean over the query's tokens of the highest cosine to any token of d) / 2
Source: ColBERT's MaxSim (Khattab and Zaharia, SIGIR 2020), here the mean instead of the sum, so
that it lies in 0..1 whatever the query's length.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.rerank.models.base import ModelInfo, Scored
from services.rerank.models.pooling import pool
from services.rerank.models.token_cache import TokenCache, TokenVectors
from shared.batching import Batcher
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import Keep, Tokenized
from shared.settings import Settings

_BLOCK_TOKENS = 1024  # float32 of so many tokens stays in a core's caches


def max_sim(query: NDArray[np.float32], documents: Sequence[TokenVectors]) -> NDArray[np.float32]:
    """Mean over the query's token vectors (float32 [q, d], units) of the best cosine to any vector
    of each document, float32 [n].

    Every document has at least one token.
    """
    longest = max(len(document.scales) for document in documents)
    # One buffer for all: fresh memory for every document's float32 costs more than the products.
    buffer = np.empty((max(_BLOCK_TOKENS, longest), query.shape[1]), np.float32)
    means = [_block_max_sim(query, block, buffer) for block in _blocks(documents, len(buffer))]
    return np.concatenate(means)


def _block_max_sim(
    query: NDArray[np.float32], block: Sequence[TokenVectors], buffer: NDArray[np.float32]
) -> NDArray[np.float32]:
    ends = np.cumsum([len(document.scales) for document in block])
    starts = [0, *ends[:-1]]
    for document, start, end in zip(block, starts, ends, strict=True):
        buffer[start:end] = document.codes
    scales = np.concatenate([document.scales for document in block])
    cosines = (query @ buffer[: ends[-1]].T) * scales
    best: NDArray[np.float32] = np.maximum.reduceat(cosines, starts, axis=1)
    mean: NDArray[np.float32] = best.mean(axis=0, dtype=np.float32)
    return mean


def _blocks(documents: Sequence[TokenVectors], room: int) -> Iterator[list[TokenVectors]]:
    """The documents in order, in blocks of at most `room` tokens."""
    block: list[TokenVectors] = []
    used = 0
    for document in documents:
        if used + len(document.scales) > room:
            yield block
            block, used = [], 0
        block.append(document)
        used += len(document.scales)
    yield block


def _digest(
    texts: Sequence[Tokenized], vectors: Sequence[NDArray[np.float32]]
) -> list[TokenVectors]:
    """What is kept of each text's token vectors, float32 [t, d]."""
    return [
        TokenVectors.of(pool(own), len(text), text.cut)
        for text, own in zip(texts, vectors, strict=True)
    ]


class LateInteraction:
    """A RerankModel that keeps the token vectors of documents it has read.

    folder: the model's weights and tokenizer. Raises ModelError (a StartupError) where it can't be
    used.
    """

    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        self._encoder = Encoder.open(
            folder, settings.built_dir, settings.rerank_precision, settings.rerank_threads
        )
        self._cache = TokenCache(settings.rerank_cache_mb * 1024 * 1024)
        self._batcher: Batcher[Tokenized, NDArray[np.float32]] = Batcher(
            name,
            self._encoder.token_vectors,
            batch_tokens=settings.rerank_batch_tokens,
            queue=settings.rerank_queue,
        )
        self.info = ModelInfo(
            model=name,
            revision=self._encoder.revision,
            max_tokens=self._encoder.tokenizer.max_tokens,
            precision=settings.rerank_precision,
            backend="late-interaction",
        )

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep: Keep = "start",
    ) -> Scored:
        """See RerankModel. An empty document scores 0, and raw -1: the lowest cosine."""
        tokenizer = self._encoder.tokenizer
        window = tokenizer.max_tokens - tokenizer.special_tokens
        limit = window if max_tokens is None else min(max_tokens, window)
        cut = f"{limit} {keep} "  # before a text, the cache's key: a text read otherwise is another
        texts = list(dict.fromkeys(text for text in documents if text.strip()))
        read: dict[str, TokenVectors] = {}
        for text in texts:
            kept = self._cache.get(cut + text)
            if kept is not None:
                read[text] = kept
        missing = [text for text in texts if text not in read]
        tokenized = await asyncio.to_thread(
            lambda: [*tokenizer.tokenize([query]), *tokenizer.tokenize(missing, limit, keep)]
        )
        vectors = await self._batcher.submit(tokenized)
        fresh = await asyncio.to_thread(_digest, tokenized[1:], vectors[1:])
        for text, kept in zip(missing, fresh, strict=True):
            read[text] = kept
            self._cache.put(cut + text, kept)
        best = np.empty(0, np.float32)
        if texts:
            best = await asyncio.to_thread(max_sim, vectors[0], [read[text] for text in texts])
        # Rounding may carry a cosine a hair past 1.
        by_text = dict(zip(texts, np.clip(best, -1, 1).tolist(), strict=True))
        cosines = [by_text.get(text, -1.0) for text in documents]
        document_tokens = [read[text].tokens if text in read else 0 for text in documents]
        return Scored(
            scores=[(1 + cosine) / 2 for cosine in cosines],
            raw_scores=cosines,
            tokens=len(tokenized[0]) + sum(document_tokens),
            document_tokens=document_tokens,
            truncated=[read[text].cut if text in read else 0 for text in documents],
            query_truncated=tokenized[0].cut,
        )

    async def close(self) -> None:
        """Stop the model's thread."""
        await asyncio.to_thread(self._batcher.close)
