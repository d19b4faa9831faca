"""Token vectors of texts that were read before, as int8, up to a number of bytes."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from shared.encoder.tokenizer import Keep

LOOKUPS = Counter("refdesk_rerank_cache_lookups", "Texts looked up in the cache", ["found"])
BYTES = Gauge("refdesk_rerank_cache_bytes", "Bytes of cached token vectors")

_ENTRY_BYTES = 300  # key, arrays' headers and the dictionary's own, roughly


@dataclass(frozen=True)
class TokenVectors:
    """Unit vectors of one text's tokens, pooled, a twelfth of the size of all in float32.

    codes: int8 [p, d]. scales: float32 [p]; a vector is its codes times its scale. The cosine of
    two vectors changes by less than 0.005 through it. tokens: of the text as the model reads it,
    special ones included. cut: how many of its tokens did not fit the model's window.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    tokens: int
    cut: int

    @classmethod
    def of(cls, vectors: NDArray[np.float32], tokens: int, cut: int) -> "TokenVectors":
        """Round unit vectors, float32 [p, d], each by its own scale."""
        scales = np.abs(vectors).max(axis=1) / 127
        codes = np.rint(vectors / scales[:, None]).astype(np.int8)
        return cls(codes, scales.astype(np.float32), tokens, cut)

    @property
    def nbytes(self) -> int:
        """What keeping it costs."""
        return self.codes.nbytes + self.scales.nbytes + _ENTRY_BYTES


def cache_key(text: str, limit: int, keep: Keep) -> bytes:
    """What a text's vectors are kept under, 16 bytes: its content, and which part of it was read:
    `limit` tokens from its start or end."""
    digest = hashlib.blake2b(f"{limit} {keep} ".encode(), digest_size=16)
    digest.update(text.encode())
    return digest.digest()


class TokenCache:
    """Least recently used texts go first. Used from the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        self.on = max_bytes > 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, TokenVectors] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        """Whether a text is kept; no lookup for the metrics, and no use of it."""
        return key in self._entries

    def get(self, key: bytes) -> TokenVectors | None:
        """The token vectors of the text with this `cache_key`, if they are kept."""
        found = self._entries.get(key)
        LOOKUPS.labels(str(found is not None).lower()).inc()
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, vectors: TokenVectors) -> None:
        """Keep them, and let go of what has not been asked for the longest."""
        old = self._entries.pop(key, None)
        self._bytes += vectors.nbytes - (old.nbytes if old else 0)
        self._entries[key] = vectors
        while self._bytes > self._max_bytes:
            _, gone = self._entries.popitem(last=False)
            self._bytes -= gone.nbytes
        BYTES.set(self._bytes)
