"""The engine between routes and model: equal texts once, known vectors from the cache, in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Encoding, Tokenizer

from services.embed.cache import CacheKeys, VectorCache
from services.embed.memory_cache import Known
from services.embed.models.base import (
    EmbeddingModel,
    Kind,
    ModelInfo,
    Reading,
    TextTooLongError,
)
from shared.encoder.tokenizer import Keep, read_whole

DENSE: frozenset[Kind] = frozenset({"dense"})
# Hashing less than this takes less time than handing it to a thread.
_INLINE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text: its id and its string in the vocabulary.

    start, end: the characters of the text that it stands for; equal for a special token, which
    stands for none.
    """

    id: int
    text: str
    start: int
    end: int
    special: bool


class Engine:
    """One embedding model, with its part of the cache that all models share."""

    def __init__(self, model: EmbeddingModel, cache: VectorCache) -> None:
        self._model = model
        self._cache = cache
        self._keys = CacheKeys(model) if cache.on else None

    @property
    def info(self) -> ModelInfo:
        """The model that is served."""
        return self._model.info

    @property
    def nbytes(self) -> int:
        """The memory that the model takes, roughly."""
        return self._model.nbytes

    def tokenizer_json(self) -> bytes:
        """The definition of the model's tokenizer; ApiError 404 where it has none."""
        return self._model.tokenizer_json()

    async def prove(self) -> None:
        """Run the model once, past the cache, so that /ready says what is so now.

        Raises ApiError as EmbeddingModel does.
        """
        await self._model.read(["is anyone there?"], frozenset(self.info.kinds[:1]))

    async def read(
        self,
        texts: Sequence[str],
        wanted: frozenset[Kind] = DENSE,
        *,
        prompt: str = "",
        keep: Keep = "start",
        whole: bool = False,
    ) -> list[Reading]:
        """What the model makes of the texts, at least one, in order; equal ones are read once.

        prompt: is put before each. keep, whole: see EmbeddingModel. Vectors of texts come from the
        cache where they are in it; nothing else is cached. Token vectors take 4 bytes times the
        dimension for each token until the answer is sent, so bound the number of texts. Raises
        ApiError and TextTooLongError as EmbeddingModel does.
        """
        inputs = [prompt + text for text in texts] if prompt else texts
        unique = list(dict.fromkeys(inputs))
        try:
            if self._keys is not None and wanted == DENSE:
                readings = await self._read_cached(self._keys, unique, keep, whole)
            else:
                readings = await self._model.read(unique, wanted, keep=keep, whole=whole)
        except TextTooLongError as error:
            place = inputs.index(unique[error.place])
            raise TextTooLongError(place, error.tokens, error.limit) from None
        by_text = dict(zip(unique, readings, strict=True))
        return [by_text[text] for text in inputs]

    def tokenize(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[list[Token]]:
        """The tokens of each text, none cut. special_tokens: with the model's own around them.

        May be called from any thread; a long text is better tokenised off the event loop. Raises
        ApiError 404 where the model has no tokenizer.
        """
        encode = self._whole_tokenizer.encode
        return [_tokens(encode(text, add_special_tokens=special_tokens)) for text in texts]

    async def close(self) -> None:
        """Let go of the model."""
        await self._model.close()

    @cached_property
    def _whole_tokenizer(self) -> Tokenizer:
        """Made when it is first asked for: few callers want to see tokens."""
        return read_whole(Tokenizer.from_buffer(self._model.tokenizer_json()))

    async def _read_cached(
        self, cache_keys: CacheKeys, texts: Sequence[str], keep: Keep, whole: bool
    ) -> list[Reading]:
        """The dense vectors of different texts."""
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            keys = cache_keys.of(texts, keep)
        else:
            keys = await asyncio.to_thread(cache_keys.of, texts, keep)
        known = await self._cache.get(keys)
        if whole:
            for place, key in enumerate(keys):
                if key in known and known[key].cut:
                    one = known[key]
                    raise TextTooLongError(place, one.tokens + one.cut, one.tokens)
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            try:
                readings = await self._model.read(
                    [texts[place] for place in missing], DENSE, keep=keep, whole=whole
                )
            except TextTooLongError as error:
                raise TextTooLongError(missing[error.place], error.tokens, error.limit) from None
            read = {
                keys[place]: Known(reading.dense, reading.tokens, reading.cut)
                for place, reading in zip(missing, readings, strict=True)
                if reading.dense is not None
            }
            await self._cache.put(read)
            known |= read
        return [Reading(one.tokens, one.cut, one.vector) for one in (known[key] for key in keys)]


def _tokens(encoding: Encoding) -> list[Token]:
    return [
        Token(number, text, start, end, bool(special))
        for number, text, (start, end), special in zip(
            encoding.ids,
            encoding.tokens,
            encoding.offsets,
            encoding.special_tokens_mask,
            strict=True,
        )
    ]
