"""A model of this process as the engine sees it: tokenised off the event loop, run in batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from services.embed.models.base import (
    Kind,
    LocalModel,
    ModelInfo,
    Reading,
    TextTooLongError,
    require_kinds,
)
from shared.batching import Batcher
from shared.encoder.tokenizer import Keep, Tokenized
from shared.errors import ApiError
from shared.settings import Settings

# Tokenising less than this takes less time than handing it to a thread.
_INLINE_CHARACTERS = 4000
# Of a large request: a caller who leaves stops it between two slices.
_SLICE_TEXTS = 512


@dataclass(frozen=True)
class _Task:
    """A text for the model, and what is wanted of it."""

    text: Tokenized
    wanted: frozenset[Kind]

    def __len__(self) -> int:
        return len(self.text)


class QueuedModel:
    """An EmbeddingModel over a LocalModel, which one thread of its own runs in batches."""

    def __init__(self, model: LocalModel, settings: Settings) -> None:
        self._model = model
        self._batcher: Batcher[_Task, Reading] = Batcher(
            model.info.model,
            self._run,
            batch_tokens=settings.embed_batch_tokens,
            queue_tokens=settings.embed_queue_tokens,
        )

    @property
    def info(self) -> ModelInfo:
        """See EmbeddingModel."""
        return self._model.info

    @property
    def nbytes(self) -> int:
        """See EmbeddingModel."""
        return self._model.nbytes

    async def read(
        self,
        texts: Sequence[str],
        wanted: frozenset[Kind],
        *,
        keep: Keep = "start",
        whole: bool = False,
    ) -> list[Reading]:
        """See EmbeddingModel."""
        require_kinds(self.info, wanted)
        self._batcher.require_room()  # before the work of tokenising
        tokenized = await self._tokenize(texts, keep)
        if whole:
            for place, text in enumerate(tokenized):
                if text.cut:
                    raise TextTooLongError(place, len(text) + text.cut, len(text))
        readings = await self._batcher.submit([_Task(text, wanted) for text in tokenized])
        for reading in readings:
            _require_sound(reading)
        return readings

    def tokenizer_json(self) -> bytes:
        """See EmbeddingModel."""
        return self._model.tokenizer.definition()

    async def close(self) -> None:
        """See EmbeddingModel."""
        await asyncio.to_thread(self._batcher.close)
        self._model.close()

    async def _tokenize(self, texts: Sequence[str], keep: Keep) -> list[Tokenized]:
        tokenize = partial(self._model.tokenizer.tokenize, keep=keep)
        if len(texts) <= _SLICE_TEXTS and sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return tokenize(texts)
        tokenized: list[Tokenized] = []
        for first in range(0, len(texts), _SLICE_TEXTS):
            some = texts[first : first + _SLICE_TEXTS]
            tokenized += await asyncio.to_thread(tokenize, some)
        return tokenized

    def _run(self, batch: Sequence[_Task]) -> list[Reading]:
        """On the model's thread. Texts of which the same is wanted go through it together."""
        readings: dict[int, Reading] = {}
        for wanted in {task.wanted for task in batch}:
            places = [place for place, task in enumerate(batch) if task.wanted == wanted]
            texts = [batch[place].text for place in places]
            readings |= zip(places, self._model.run(texts, wanted), strict=True)
        return [readings[place] for place in range(len(batch))]


def _require_sound(reading: Reading) -> None:
    """Raise ApiError 503 where a vector is none: in 16 bits, numbers may overflow."""
    for vectors in (reading.dense, reading.token_vectors):
        # NaN and infinity stay in a sum of squares, and nothing is 0 but what has no direction.
        if vectors is not None and not 0 < np.vdot(vectors, vectors) < np.inf:
            message = "the model answers vectors that are not finite, or that are all 0"
            raise ApiError(503, "bad_model", message)
