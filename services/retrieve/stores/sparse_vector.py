"""Sparse vectors: the weights that a model gives to the words of a text, by token id."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Sparse:
    """A text's sparse vector. tokens: ids, int32 [n], ascending from 0. weights: float32 [n].

    A text may have no word that weighs anything: n is 0 then. Raises ValueError unless ids ascend
    and weights are finite and above 0.
    """

    tokens: Tokens
    weights: Weights

    def __post_init__(self) -> None:
        tokens, weights = self.tokens, self.weights
        if tokens.dtype != np.int32 or weights.dtype != np.float32:
            raise ValueError(f"tokens and weights of {tokens.dtype} and {weights.dtype}")
        if tokens.ndim != 1 or tokens.shape != weights.shape:
            raise ValueError(f"tokens {tokens.shape} and weights {weights.shape}")
        if (tokens[:1] < 0).any() or (tokens[1:] <= tokens[:-1]).any():
            raise ValueError("token ids that do not ascend from 0")
        if not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("a weight that is not finite and above 0")
