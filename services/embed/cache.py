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
from shared.encoder.tokenizer import Keep
from shared.errors import ApiError
from shared.settings import Settings

LOOKUPS = Counter("refdesk_embed_cache_lookups", "Texts looked up in the vector cache", ["result"])
BYTES = Gauge("refdesk_embed_cache_bytes", "Bytes of cached vectors", ["where"])

_MIB = 1024 * 1024
# Texts that are looked up or kept before the event loop has its turn.
_SLICE = 512


class VectorCache:
    """What models gave for texts, for as long as they are the same models.

    All models of a service share it. Used from one event loop. A disk that fails costs its part of
    the cache and nothing else.
    """

    def __init__(self, settings: Settings) -> None:
        self.on = settings.embed_cache_mb > 0 or settings.embed_cache_dir is not None
        self._memory = MemoryCache(settings.embed_cache_mb * _MIB)
        self._disk: DiskCache | None = None
        if settings.embed_cache_dir is not None:
            self._disk = DiskCache(settings.embed_cache_dir, settings.embed_cache_disk_mb * _MIB)
            self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="disk-cache")
            BYTES.labels("disk").set(self._disk.nbytes)

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known under the keys."""
        found: dict[bytes, Known] = {}
        for first in range(0, len(keys), _SLICE):
            if first:
                await asyncio.sleep(0)
            for key in keys[first : first + _SLICE]:
                if (known := self._memory.get(key)) is not None:
                    found[key] = known
        LOOKUPS.labels("memory").inc(len(found))
        missing = [key for key in keys if key not in found]
        if missing and self._disk is not None:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._disk_thread, self._disk.get, missing)
            LOOKUPS.labels("disk").inc(len(read))
            await self._remember(read)
            found |= read
        LOOKUPS.labels("miss").inc(len(keys) - len(found))
        return found

    async def put(self, known: Mapping[bytes, Known]) -> None:
        """Keep what a model gave, but for vectors that are none: its fault is not to last."""
        sound = await self._remember(known)
        if sound and self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(
                self._disk_thread, self._write, self._disk, sound
            )

    async def close(self) -> None:
        """Let go of the file."""
        if self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(self._disk_thread, self._disk.close)
            self._disk_thread.shutdown(wait=False)

    async def _remember(self, known: Mapping[bytes, Known]) -> dict[bytes, Known]:
        """Keep in memory what is sound, and give it back."""
        sound: dict[bytes, Known] = {}
        for number, (key, one) in enumerate(known.items(), 1):
            if np.isfinite(one.vector).all():
                sound[key] = one
                self._memory.put(key, one)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        BYTES.labels("memory").set(self._memory.nbytes)
        return sound

    @staticmethod
    def _write(disk: DiskCache, known: Mapping[bytes, Known]) -> None:
        disk.put(known)
        BYTES.labels("disk").set(disk.nbytes)


class CacheKeys:
    """Makes the keys of one model's vectors: of all that a vector depends on.

    Raises whatever the model's `tokenizer_json` does, but for having none.
    """

    def __init__(self, model: EmbeddingModel) -> None:
        info = model.info
        self._start = hashlib.blake2b(digest_size=32)
        parts = (info.backend, info.model, info.precision, info.revision)
        for part in (*parts, info.dimension, info.max_tokens):
            self._start.update(f"{part}\n".encode())
        self._start.update(hashlib.sha256(_tokenizer(model)).digest())

    def of(self, inputs: Sequence[str], keep: Keep) -> list[bytes]:
        """The key of each input, as the model gets it: prompt and text. From any thread.

        keep: the part that is read of a text that is too long.
        """
        start = self._start.copy()
        start.update(keep.encode() + b"\n")
        keys = []
        for text in inputs:
            digest = start.copy()
            digest.update(text.encode())
            keys.append(digest.digest())
        return keys


def _tokenizer(model: EmbeddingModel) -> bytes:
    try:
        return model.tokenizer_json()
    except ApiError as error:
        if error.code != "no_tokenizer":
            raise
        return b""
