"""Late interaction over the librarian's own model: the curator that needs no further weights.

The raw score of a document is the mean over the query's tokens of the highest cosine to any token
of the document: ColBERT's MaxSim (Khattab and Zaharia, SIGIR 2020), here the mean instead of the
sum, so that the query's length does not scale it. calibration.py makes a relevance of it; for a
model without a calibration the relevance is (1 + raw) / 2.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from services.rerank.models.base import UNCALIBRATED, ModelInfo, Scored, require_whole
from services.rerank.models.calibration import read_calibration
from services.rerank.models.pooling import pool
from services.rerank.models.token_cache import TokenCache, TokenVectors, cache_key
from shared.batching import Batcher
from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import Keep, Tokenized
from shared.settings import Settings

_BLOCK_TOKENS = 1024  # float32 of so many tokens stays in a core's caches


def max_sim(
    query: NDArray[np.float32],
    documents: Sequence[TokenVectors],
    block_tokens: int = _BLOCK_TOKENS,
) -> NDArray[np.float32]:
    """Mean over the query's token vectors (float32 [q, d], units) of the best cosine to any vector
    of each document, float32 [n].

    Every document has at least one token. block_tokens: how many vectors are multiplied at once.
    """
    longest = max(len(document.scales) for document in documents)
    # One buffer for all: fresh memory for every document's float32 costs more than the products.
    buffer = np.empty((max(block_tokens, longest), query.shape[1]), np.float32)
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


def _keys(documents: Sequence[str], limit: int, keep: Keep) -> dict[str, bytes]:
    """The distinct documents that have anything to read, with their keys in the cache."""
    return {text: cache_key(text, limit, keep) for text in documents if text.strip()}


class _Document(Tokenized):
    """A text whose token vectors are pooled and kept; those of a query are neither."""


def _digest(text: Tokenized, vectors: NDArray[np.float32]) -> TokenVectors | NDArray[np.float32]:
    """What is wanted of a text's token vectors, float32 [t, d]."""
    if isinstance(text, _Document):
        return TokenVectors.of(pool(vectors), len(text), text.cut)
    return vectors


class LateInteraction:
    """A RerankModel that keeps the token vectors of documents it has read.

    folder: the model's weights and tokenizer. Raises ModelError (a StartupError) where it can't be
    used.
    """

    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        self._encoder = Encoder.open(
            folder, settings.built_dir, settings.rerank_precision, settings.rerank_threads
        )
        self._window = self._encoder.tokenizer.max_tokens - self._encoder.tokenizer.special_tokens
        self._calibration = read_calibration(folder, "late-interaction", self._encoder.revision)
        self._cache = TokenCache(settings.rerank_cache_mb * 1024 * 1024)
        self._batcher: Batcher[Tokenized, TokenVectors | NDArray[np.float32]] = Batcher(
            name,
            lambda batch: self._encoder.digest(batch, _digest),
            batch_tokens=settings.rerank_batch_tokens,
            queue_tokens=settings.rerank_queue_tokens,
        )
        self.info = ModelInfo(
            model=name,
            revision=self._encoder.revision,
            max_tokens=self._encoder.tokenizer.max_tokens,
            precision=self._encoder.precision,
            backend="late-interaction",
            calibration=self._calibration.how if self._calibration else UNCALIBRATED,
        )

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep: Keep = "start",
        whole: bool = False,
    ) -> Scored:
        """See RerankModel. An empty document scores 0, and raw -1: the lowest cosine."""
        self._batcher.require_room()  # before the work of tokenising
        tokenizer = self._encoder.tokenizer
        limit = self._window if max_tokens is None else min(max_tokens, self._window)
        keys = await asyncio.to_thread(_keys, documents, limit, keep)
        read: dict[str, TokenVectors] = {}
        for text, key in keys.items():
            kept = self._cache.get(key)
            if kept is not None:
                read[text] = kept
        missing = [text for text in keys if text not in read]
        [asked], unread = await asyncio.to_thread(
            lambda: (tokenizer.tokenize([query]), self._tokenize(missing, limit, keep))
        )
        if whole:
            cuts = dict(zip(missing, (text.cut for text in unread), strict=True))
            cuts |= {text: kept.cut for text, kept in read.items()}
            require_whole(
                asked.cut, [cuts.get(text, 0) for text in documents], tokenizer.max_tokens
            )
        query_vectors, *fresh = await self._batcher.submit([asked, *unread])
        read |= self._keep([keys[text] for text in missing], missing, fresh)
        best = np.empty(0, np.float32)
        if keys:
            best = await asyncio.to_thread(
                max_sim, cast(NDArray[np.float32], query_vectors), [read[text] for text in keys]
            )
        best = np.clip(best, -1, 1)  # rounding may carry a cosine a hair past 1
        raw = dict(zip(keys, best.tolist(), strict=True))
        relevance = dict(zip(keys, self._relevance(best).tolist(), strict=True))
        document_tokens = [read[text].tokens if text in read else 0 for text in documents]
        return Scored(
            scores=[relevance.get(text, 0.0) for text in documents],
            raw_scores=[raw.get(text, -1.0) for text in documents],
            tokens=len(asked) + sum(document_tokens),
            document_tokens=document_tokens,
            truncated=[read[text].cut if text in read else 0 for text in documents],
            query_truncated=asked.cut,
        )

    async def fill(self, documents: Sequence[str]) -> int:
        """Read what is not in the cache yet into it, so that `score` finds it there; gives how many
        that were, 0 without a cache. Raises ApiError like `score`."""
        if not self._cache.on:
            return 0
        keys = await asyncio.to_thread(_keys, documents, self._window, "start")
        missing = [text for text, key in keys.items() if key not in self._cache]
        unread = await asyncio.to_thread(self._tokenize, missing, self._window, "start")
        fresh = await self._batcher.submit(unread)
        self._keep([keys[text] for text in missing], missing, fresh)
        return len(missing)

    def _tokenize(self, texts: Sequence[str], limit: int, keep: Keep) -> list[Tokenized]:
        return [
            _Document(text.ids, text.cut)
            for text in self._encoder.tokenizer.tokenize(texts, limit, keep)
        ]

    def _keep(
        self,
        keys: Sequence[bytes],
        texts: Sequence[str],
        fresh: Sequence[TokenVectors | NDArray[np.float32]],
    ) -> dict[str, TokenVectors]:
        """Put what was read into the cache; gives it by text."""
        read = dict(zip(texts, cast(Sequence[TokenVectors], fresh), strict=True))
        for key, kept in zip(keys, read.values(), strict=True):
            self._cache.put(key, kept)
        return read

    def _relevance(self, raw: NDArray[np.float32]) -> NDArray[np.float64]:
        if self._calibration is None:
            return (1 + raw.astype(np.float64)) / 2
        return self._calibration.apply(raw)

    async def close(self) -> None:
        """Stop the model's thread and let go of its weights."""
        await asyncio.to_thread(self._batcher.close)
        self._encoder.close()
