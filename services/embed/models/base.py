"""What every backend of the librarian offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.encoder.tokenizer import Keep, TextTokenizer, Tokenized
from shared.errors import ApiError
from shared.settings import EmbedBackend

Vectors = NDArray[np.float32]
Backend = EmbedBackend
# What can be made of a text: its vector, the weights of its words, a vector for each token.
Kind = Literal["dense", "sparse", "tokens"]

_OUTPUTS: dict[Kind, str] = {
    "dense": "dense vectors",
    "sparse": "sparse vectors",
    "tokens": "token vectors",
}


@dataclass(frozen=True)
class ModelInfo:
    """A model as it is served.

    revision: changes whenever the vectors do (weights or precision). dimension: of a vector.
    max_tokens: longest input that reaches the model whole, special_tokens of them its own; None
    where a remote model does not say. prompts: what the model wants before a text, by the name of
    its use, such as ``query``. default_prompt: what goes before a text whose request names no
    prompt and no use; empty for most. kinds: what the model makes.
    """

    model: str
    revision: str
    dimension: int
    max_tokens: int | None
    special_tokens: int
    precision: str
    backend: Backend
    prompts: dict[str, str]
    default_prompt: str
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Reading:
    """What a model made of one text; None for what was not asked for.

    tokens: that it read, special ones included. cut: that did not fit its window. dense: unit
    vector, float32 [d]. sparse: weights above 0 by token id. token_vectors: unit rows, float32
    [t, d], special tokens included.
    """

    tokens: int
    cut: int
    dense: Vectors | None = None
    sparse: dict[int, float] | None = None
    token_vectors: Vectors | None = None


def require_kinds(info: ModelInfo, wanted: frozenset[Kind]) -> None:
    """Raises ApiError 424 where the model does not make all that is wanted."""
    missing = sorted(wanted - set(info.kinds))
    if missing:
        message = f"{info.model} makes no {_OUTPUTS[missing[0]]}, only " + " and ".join(
            _OUTPUTS[kind] for kind in info.kinds
        )
        raise ApiError(424, "no_such_output", message, param="outputs")


def readings(
    batch: Sequence[Tokenized],
    *,
    dense: Vectors | None = None,
    sparse: Sequence[dict[int, float]] | None = None,
    token_vectors: Sequence[Vectors] | None = None,
) -> list[Reading]:
    """A reading for each text, of what was made for the batch: dense, float32 [n, d], and for each
    text the weights of its words and its tokens' vectors, float32 [t, d]."""
    return [
        Reading(
            len(text),
            text.cut,
            dense=None if dense is None else dense[row],
            sparse=None if sparse is None else sparse[row],
            token_vectors=None if token_vectors is None else token_vectors[row],
        )
        for row, text in enumerate(batch)
    ]


class TextTooLongError(Exception):
    """A text that was to be read whole has more tokens than the model reads.

    place: of the text among those given. tokens: that it has. limit: that the model reads.
    """

    def __init__(self, place: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {place} has {tokens} tokens, and the model reads {limit}")
        self.place = place
        self.tokens = tokens
        self.limit = limit


class EmbeddingModel(Protocol):
    """A model that turns texts into vectors, wherever it runs. Used from one event loop."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory that the loaded model takes, roughly: its weights. 0 for a remote one."""
        ...

    async def read(
        self,
        texts: Sequence[str],
        wanted: frozenset[Kind],
        *,
        keep: Keep = "start",
        whole: bool = False,
    ) -> list[Reading]:
        """What the model makes of each text, in order: the kinds wanted, in one forward pass.

        keep: the part of a text that is read where it is too long. whole: whether a text that is
        too long is refused instead, before any of them is read. Raises ApiError (424 for a kind
        that the model does not make, 429, 502, 503 where the model's numbers are none, 504) and,
        where whole, TextTooLongError.
        """
        ...

    def tokenizer_json(self) -> bytes:
        """The tokenizer's definition, for those who count tokens as the model does.

        Raises ApiError 404 `no_tokenizer` where there is none.
        """
        ...

    async def close(self) -> None:
        """Let go of what the model holds; nothing is read any more."""
        ...


class LocalModel(Protocol):
    """A model in this process. `run` may be called from one thread at a time.

    services/embed/models/local.py makes an EmbeddingModel of it.
    """

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory that the weights take, roughly."""
        ...

    @property
    def tokenizer(self) -> TextTokenizer:
        """Makes what `run` takes."""
        ...

    def run(self, batch: Sequence[Tokenized], wanted: frozenset[Kind]) -> list[Reading]:
        """What the model makes of each text, in the order of the batch, in one forward pass.

        wanted: of the kinds that `info` has, at least one.
        """
        ...

    def close(self) -> None:
        """Let go of the weights; nothing is run any more."""
        ...
