"""The vectors of texts that were read before, found by content: in memory, then on disk."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from prometheus_client import Counter, Gauge

from services.embed.disk_cache import DiskCache
from services.embed.memory_cache import Known, MemoryCache
from services.embed.models.base import EmbeddingModel
from shared.settings import Settings

LOOKUPS = Counter("refdesk_embed_cache_lookups", "Texts looked up in the vector cache", ["result"])
BYTES = Gauge("refdesk_embed_cache_bytes", "Bytes of cached vectors", ["where"])

_MIB = 1024 * 1024


class VectorCache:
    """What a model gave for texts, for as long as it is the same model.

    Used from one event loop. A disk that fails costs its part of the cache and nothing else.
    """

    def __init__(self, model: EmbeddingModel, settings: Settings) -> None:
        self._identity = _identity(model)
        dimension = model.info.dimension
        self._memory = MemoryCache(settings.embed_cache_mb * _MIB, dimension)
        self._disk = (
            DiskCache(settings.embed_cache_dir, settings.embed_cache_disk_mb * _MIB, dimension)
            if settings.embed_cache_dir
            else None
        )
        if self._disk is not None:
            BYTES.labels("disk").set(self._disk.nbytes)
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="disk-cache")
        self._on = settings.embed_cache_mb > 0 or self._disk is not None

    def keys(self, inputs: Sequence[str]) -> list[bytes]:
        """The key of each input, as the model gets it: prompt and text. From any thread."""
        return [self._identity_with(text) for text in inputs]

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known under the keys."""
        if not self._on:
            return {}
        found = {key: known for key in keys if (known := self._memory.get(key)) is not None}
        LOOKUPS.labels("memory").inc(len(found))
        missing = [key for key in keys if key not in found]
        if missing and self._disk is not None:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._disk_thread, self._disk.get, missing)
            LOOKUPS.labels("disk").inc(len(read))
            self._remember(read)
            found |= read
        LOOKUPS.labels("miss").inc(len(keys) - len(found))
        return found

    async def put(self, known: Mapping[bytes, Known]) -> None:
        """Keep what the model gave, but for vectors that are none: its fault is not to last."""
        if not self._on:
            return
        sound = {key: one for key, one in known.items() if np.isfinite(one.vector).all()}
        self._remember(sound)
        if sound and self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(
                self._disk_thread, self._write, self._disk, sound
            )

    async def close(self) -> None:
        """Let go of the file."""
        if self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(self._disk_thread, self._disk.close)
        self._disk_thread.shutdown(wait=False)

    def _identity_with(self, text: str) -> bytes:
        digest = self._identity.copy()
        digest.update(text.encode())
        return digest.digest()

    def _remember(self, known: Mapping[bytes, Known]) -> None:
        for key, one in known.items():
            self._memory.put(key, one)
        BYTES.labels("memory").set(self._memory.nbytes)

    @staticmethod
    def _write(disk: DiskCache, known: Mapping[bytes, Known]) -> None:
        disk.put(known)
        BYTES.labels("disk").set(disk.nbytes)


def _identity(model: EmbeddingModel) -> "hashlib.blake2b":
    """All that a vector depends on beside its text, as the start of a hash."""
    info = model.info
    digest = hashlib.blake2b(digest_size=32)
    for part in (info.backend, info.precision, info.revision, info.dimension, info.max_tokens):
        digest.update(f"{part}\n".encode())
    digest.update(hashlib.sha256(model.tokenizer_json()).digest())
    return digest
