"""The engine between routes and model: tokenise, batch, and put the answers in order."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from services.embed.cache import VectorCache
from services.embed.memory_cache import Known
from services.embed.models.base import EmbeddingModel, ModelInfo, Vectors
from shared.batching import Batcher
from shared.encoder.tokenizer import Tokenized
from shared.errors import ApiError
from shared.settings import Settings

# Tokenising less than this takes less time than handing it to a thread.
_INLINE_CHARACTERS = 4000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Embedded:
    """Vectors of a request: float32 [n, dimension] of unit rows.

    tokens: what the model reads in all, each input counted, special tokens included. cut: for each
    input, how many tokens did not fit the model's window.
    """

    vectors: Vectors
    tokens: int
    cut: list[int]


@dataclass(frozen=True)
class TokenEmbedded:
    """Token vectors of a request: for each input float32 [t, dimension] of unit rows, special
    tokens included. tokens and cut as in Embedded.
    """

    vectors: list[Vectors]
    tokens: int
    cut: list[int]


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


@dataclass(frozen=True)
class _Task:
    """A text for the model. every_token: whether each token's vector is wanted, or their mean."""

    text: Tokenized
    every_token: bool

    def __len__(self) -> int:
        return len(self.text)


class Engine:
    """One embedding model and its queue."""

    def __init__(self, model: EmbeddingModel, settings: Settings) -> None:
        self._model = model
        self._cache = VectorCache(model, settings)
        self._batcher: Batcher[_Task, Vectors] = Batcher(
            model.info.model,
            self._run,
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

    async def prove(self) -> None:
        """Run the model once, past the cache, so that /ready says what is so now.

        Raises ApiError 503 where its numbers are no numbers, and whatever `embed` raises.
        """
        [tokenized] = self._model.tokenize(["is anyone there?"])
        [vector] = await self._batcher.submit([_Task(tokenized, every_token=False)])
        if not np.isfinite(vector).all():
            raise ApiError(503, "bad_model", "the model answers numbers that are not finite")

    async def embed(self, texts: Sequence[str], *, prompt: str = "") -> Embedded:
        """Embed the texts, at least one, equal ones once. prompt: is put before each.

        Raises ApiError 429 while the queue is full, 504 if the time is up.
        """
        inputs = [prompt + text for text in texts]
        unique = list(dict.fromkeys(inputs))
        keys = dict(zip(unique, await _off_loop(self._cache.keys, unique), strict=True))
        known = await self._cache.get(list(keys.values()))
        missing = [text for text in unique if keys[text] not in known]
        if missing:
            read = await self._read([keys[text] for text in missing], missing)
            await self._cache.put(read)
            known |= read
        answers = [known[keys[text]] for text in inputs]
        return Embedded(
            vectors=np.stack([answer.vector for answer in answers]),
            tokens=sum(answer.tokens for answer in answers),
            cut=[answer.cut for answer in answers],
        )

    async def token_vectors(self, texts: Sequence[str], *, prompt: str = "") -> TokenEmbedded:
        """A vector for each token of the texts, equal texts once. prompt: is put before each.

        Nothing of it is cached. A token takes 4 bytes times the dimension until the answer is
        sent, so bound the number of texts. Raises as `embed`.
        """
        unique = list(dict.fromkeys(texts))
        tokenized = await _off_loop(self._model.tokenize, [prompt + text for text in unique])
        vectors = await self._batcher.submit([_Task(text, every_token=True) for text in tokenized])
        place = {text: number for number, text in enumerate(unique)}
        order = [place[text] for text in texts]
        return TokenEmbedded(
            vectors=[vectors[number] for number in order],
            tokens=sum(len(tokenized[number]) for number in order),
            cut=[tokenized[number].cut for number in order],
        )

    def tokenize(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[list[Token]]:
        """The tokens of each text, none cut. special_tokens: with the model's own around them.

        May be called from any thread; a long text is better tokenised off the event loop.
        """
        encode = self._whole_tokenizer.encode
        return [_tokens(encode(text, add_special_tokens=special_tokens)) for text in texts]

    async def close(self) -> None:
        """Stop the model's thread and close the cache."""
        await asyncio.to_thread(self._batcher.close)
        await self._cache.close()

    @cached_property
    def _whole_tokenizer(self) -> Tokenizer:
        """Made when it is first asked for: few callers want to see tokens."""
        tokenizer = Tokenizer.from_buffer(self._model.tokenizer_json())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    async def _read(self, keys: Sequence[bytes], texts: Sequence[str]) -> dict[bytes, Known]:
        tokenized = await _off_loop(self._model.tokenize, texts)
        rows = await self._batcher.submit([_Task(text, every_token=False) for text in tokenized])
        return {
            key: Known(row, len(text), text.cut)
            for key, row, text in zip(keys, rows, tokenized, strict=True)
        }

    def _run(self, batch: Sequence[_Task]) -> list[Vectors]:
        """On the model's thread: float32 [d] for each text, or [t, d] where every token counts."""
        results: dict[int, Vectors] = {}
        for every_token, run in ((False, self._model.embed), (True, self._model.token_vectors)):
            places = [place for place, task in enumerate(batch) if task.every_token == every_token]
            if places:
                results |= zip(places, run([batch[place].text for place in places]), strict=True)
        return [results[place] for place in range(len(batch))]


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


async def _off_loop(
    function: Callable[[Sequence[str]], list[Result]], texts: Sequence[str]
) -> list[Result]:
    """What the function gives for the texts; on a thread where they are long."""
    if sum(map(len, texts)) <= _INLINE_CHARACTERS:
        return function(texts)
    return await asyncio.to_thread(function, texts)
