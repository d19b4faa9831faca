"""The engine between routes and model: tokenise, batch, and put the answers in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.embed.models.base import EmbeddingModel, ModelInfo, Vectors
from shared.batching import Batcher
from shared.encoder.tokenizer import Tokenized
from shared.settings import Settings

# Tokenising less than this takes less time than handing it to a thread.
_INLINE_CHARACTERS = 4000


@dataclass(frozen=True)
class Embedded:
    """Vectors of a request: float32 [n, dimension] of unit rows.

    tokens: what the model read in all, each input counted, special tokens included. cut: for each
    input, how many tokens did not fit the model's window.
    """

    vectors: Vectors
    tokens: int
    cut: list[int]


class Engine:
    """One embedding model and its queue."""

    def __init__(self, model: EmbeddingModel, settings: Settings) -> None:
        self._model = model
        self._batcher: Batcher[Tokenized, Vectors] = Batcher(
            model.info.model,
            lambda batch: list(model.embed(batch)),
            batch_tokens=settings.embed_batch_tokens,
            queue=settings.embed_queue,
        )

    @property
    def info(self) -> ModelInfo:
        """The model that is served."""
        return self._model.info

    def tokenizer_json(self) -> bytes:
        """The definition of the model's tokenizer."""
        return self._model.tokenizer_json()

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts, equal ones once. Raises ApiError 429 while the queue is full."""
        unique = list(dict.fromkeys(texts))
        if sum(map(len, unique)) <= _INLINE_CHARACTERS:
            tokenized = self._model.tokenize(unique)
        else:
            tokenized = await asyncio.to_thread(self._model.tokenize, unique)
        rows = await self._batcher.submit(tokenized)
        place = {text: number for number, text in enumerate(unique)}
        order = [place[text] for text in texts]
        return Embedded(
            vectors=np.stack([rows[number] for number in order]),
            tokens=sum(len(tokenized[number]) for number in order),
            cut=[tokenized[number].cut for number in order],
        )

    async def close(self) -> None:
        """Stop the model's thread."""
        await asyncio.to_thread(self._batcher.close)
