"""The sparse vectors of chunks, one after another: how they are stored, and read all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.sparse_vector import Sparse, Tokens, Weights

_PAIR = np.dtype([("token", "<i4"), ("weight", "<f4")])


def packed(vector: Sparse) -> bytes:
    """A vector as it is stored: for each token its id, int32, and its weight, float32."""
    pairs = np.empty(len(vector.tokens), _PAIR)
    pairs["token"], pairs["weight"] = vector.tokens, vector.weights
    return pairs.tobytes()


def unpacked(data: bytes) -> Sparse:
    """A vector of which `packed` was made. Raises ValueError where it can be none."""
    pairs = np.frombuffer(data, _PAIR)
    return Sparse(pairs["token"].astype(np.int32), pairs["weight"].astype(np.float32))


@dataclass(frozen=True)
class SparseRows:
    """Vectors by ascending keys int64 [n]: tokens int32 [m] and weights float32 [m] of all of them,
    of which the first has the first `lengths`, int64 [n], and so on."""

    keys: NDArray[np.int64]
    lengths: NDArray[np.int64]
    tokens: Tokens
    weights: Weights

    @classmethod
    def of(cls, keys: Sequence[int], vectors: Sequence[Sparse]) -> "SparseRows":
        """Some vectors. Raises ValueError where there is not one for each key."""
        if len(keys) != len(vectors):
            raise ValueError(f"{len(vectors)} sparse vectors for {len(keys)} keys")
        return cls(
            np.array(keys, np.int64),
            np.array([len(vector.tokens) for vector in vectors], np.int64),
            np.concatenate([np.empty(0, np.int32), *(vector.tokens for vector in vectors)]),
            np.concatenate([np.empty(0, np.float32), *(vector.weights for vector in vectors)]),
        )

    @classmethod
    def unpacked(cls, rows: Sequence[tuple[int, bytes]]) -> "SparseRows":
        """Keys and `packed` vectors. Raises ValueError where one can't be what `packed` made."""
        sizes = np.array([len(data) for _, data in rows], np.int64)
        if (sizes % _PAIR.itemsize).any():
            raise ValueError("a sparse vector has half a weight")
        pairs = np.frombuffer(b"".join(data for _, data in rows), _PAIR)
        tokens, weights = pairs["token"].astype(np.int32), pairs["weight"].astype(np.float32)
        keys, lengths = np.array([key for key, _ in rows], np.int64), sizes // _PAIR.itemsize
        ascends = tokens[1:] > tokens[:-1]
        ends = np.cumsum(lengths)[:-1]
        ascends[ends[(ends > 0) & (ends < len(tokens))] - 1] = True  # from one vector to the next
        sound = ascends.all() and (tokens >= 0).all()
        if not (sound and (np.isfinite(weights) & (weights > 0)).all()):
            raise ValueError("a sparse vector has a token or a weight that is none")
        return cls(keys, lengths, tokens, weights)

    @classmethod
    def joined(cls, parts: Sequence["SparseRows"]) -> "SparseRows":
        """Several, in the order of their keys, as one."""
        every = [cls.of([], []), *parts]
        return cls(
            np.concatenate([part.keys for part in every]),
            np.concatenate([part.lengths for part in every]),
            np.concatenate([part.tokens for part in every]),
            np.concatenate([part.weights for part in every]),
        )
