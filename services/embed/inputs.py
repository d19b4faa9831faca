"""Checks of a request that OpenAI's surface and TEI's have in common.

status: what the API at hand answers to a bad field, 400 (OpenAI) or 422 (TEI). param_of: gives the
name of a text's field by its place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np

from services.embed.models.base import ModelInfo, TextTooLongError, Vectors
from shared.errors import ApiError

MAX_CHARACTERS = 1_000_000
# Token vectors are much larger than their texts: what one answer may hold.
MAX_TOKEN_VECTORS = 8192

InputType = Literal["query", "document", "passage"]

# Models call the prompt for what is searched either way.
_PROMPTS_OF: dict[InputType, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage"),
    "passage": ("passage", "document"),
}


def require_readable(texts: Sequence[str], param_of: Callable[[int], str]) -> None:
    """Raises ApiError 413 where a text has more than MAX_CHARACTERS."""
    for place, text in enumerate(texts):
        if len(text) > MAX_CHARACTERS:
            param = param_of(place)
            message = f"{param}: a text may have {MAX_CHARACTERS:,} characters at most"
            raise ApiError(413, "text_too_long", message, param=param)


def require_few_tokens(texts: Sequence[str], info: ModelInfo, field: str, prompt: str) -> None:
    """Raises ApiError 413 where the texts, each after the prompt, may have more tokens than
    MAX_TOKEN_VECTORS.

    A text has about as many tokens as bytes at most, and no more than the model reads.
    """
    window = info.max_tokens or MAX_TOKEN_VECTORS
    own = len(prompt.encode()) + info.special_tokens
    tokens = sum(min(window, len(text.encode()) + own) for text in texts)
    if tokens > max(MAX_TOKEN_VECTORS, window):
        message = (
            f"{field}: token vectors are given for {MAX_TOKEN_VECTORS:,} tokens at a time, and "
            f"these texts may have {tokens:,}; send fewer at a time"
        )
        raise ApiError(413, "text_too_long", message, param=field)


@contextmanager
def refusing_long(info: ModelInfo, param_of: Callable[[int], str]) -> Iterator[None]:
    """Turns a TextTooLongError within into an ApiError 413."""
    try:
        yield
    except TextTooLongError as error:
        param = param_of(error.place)
        message = (
            f"{param}: the text has {error.tokens} tokens, and {info.model} reads {error.limit}; "
            "shorten it, or have it cut with `truncate: true`"
        )
        raise ApiError(413, "text_too_long", message, param=param) from None


def require_dimensions(dimensions: int | None, info: ModelInfo, status: int) -> None:
    """Raises ApiError where more are asked for than the model has."""
    if dimensions is not None and dimensions > info.dimension:
        message = f"dimensions: {info.model} has {info.dimension} of them"
        raise ApiError(status, "too_many_dimensions", message, param="dimensions")


def prompt_of(info: ModelInfo, name: str | None, use: InputType | None, status: int) -> str:
    """What goes before each text: the model's prompt of that name, else the one for that use.

    The model's default prompt, which is mostly empty, where neither is given, or where the model
    has no prompt for the use. Raises ApiError for a name that the model does not know.
    """
    if name is not None:
        if name not in info.prompts:
            known = ", ".join(info.prompts) or "none"
            message = f"prompt_name: {info.model} has no prompt '{name}'; its prompts are: {known}"
            raise ApiError(status, "unknown_prompt", message, param="prompt_name")
        return info.prompts[name]
    names = _PROMPTS_OF[use] if use is not None else ()
    return next((info.prompts[one] for one in names if one in info.prompts), info.default_prompt)


def shorten(vectors: Vectors, dimensions: int | None, *, normalize: bool = True) -> Vectors:
    """The first `dimensions` numbers of each vector, at length 1 again if `normalize`.

    float32 [n, dimensions], C-contiguous.
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    short = np.ascontiguousarray(vectors[:, :dimensions])
    if normalize:
        norms = np.linalg.norm(short, axis=1, keepdims=True)
        short /= np.maximum(norms, np.finfo(np.float32).tiny)
    return short
