"""The librarian's vectors of many questions, kept in a file so that each is made once."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.generate.routing.learned.outcomes import OutcomesError
from shared.client import Patience, ServiceClient
from shared.durable import atomic_write
from shared.settings import Settings
from shared.vectors import embedder_of, read_vectors

_BATCH = 64
_SAVED_EVERY = 16  # batches
_PATIENT = Patience(tries=4, max_pause_s=30.0)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """Vectors of questions. model: the embedder's name and revision. unit: float32 [n, d]."""

    model: str
    unit: NDArray[np.float32]

    def rows(self, chosen: NDArray[np.intp]) -> "Embedded":
        """Those in the chosen places."""
        return Embedded(self.model, self.unit[chosen])


async def embed(
    texts: Sequence[str], settings: Settings, kept: Path | None, progress: Progress
) -> Embedded:
    """The unit vectors of canonical texts, from the embed service that the settings name.

    kept: an .npz file; what it holds for the service's present model is not asked for again, and
    what is new is added. progress: told how many of how many texts that were missing are done.
    Raises ApiError as the service does, OutcomesError where `kept` is something else.
    """
    client = ServiceClient(
        "embed",
        settings.url("embed"),
        settings=settings,
        key=settings.api_key or settings.service_key,
        patience=_PATIENT,
    )
    try:
        model = await _model(client)
        store = _read(kept, model)
        missing = sorted({text for text in texts if _key(text) not in store}, key=len)
        for number, start in enumerate(range(0, len(missing), _BATCH), start=1):
            batch = missing[start : start + _BATCH]
            body = {"input": batch, "encoding_format": "base64"}
            found = read_vectors(await client.post("/v1/embeddings", body), len(batch))
            store |= {_key(text): row for text, row in zip(batch, found, strict=True)}
            progress(start + len(batch), len(missing))
            if kept and number % _SAVED_EVERY == 0:
                await asyncio.to_thread(_write, kept, model, store)
        if kept and missing:
            await asyncio.to_thread(_write, kept, model, store)
    finally:
        await client.close()
    vectors = np.stack([store[_key(text)] for text in texts])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedded(model, vectors / np.maximum(lengths, 1e-9))


async def _model(client: ServiceClient) -> str:
    """What embed serves by default, found by embedding a word: ``name@revision``."""
    answer = await client.post("/v1/embeddings", {"input": ["model"], "encoding_format": "base64"})
    return embedder_of(answer)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read(path: Path | None, model: str) -> dict[bytes, NDArray[np.float32]]:
    if path is None or not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["model"]) != model:
                return {}
            keys, vectors = file["keys"], file["vectors"].astype(np.float32)
            if keys.shape != (len(vectors), 32) or vectors.ndim != 2:
                raise ValueError
    # TypeError: a single array (.npy) is none of several.
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise OutcomesError(
            f"{path} is no file of vectors that this command wrote: name another or delete it"
        ) from None
    return {bytes(key): row for key, row in zip(keys, vectors, strict=True)}


def _write(path: Path, model: str, store: dict[bytes, NDArray[np.float32]]) -> None:
    file = io.BytesIO()
    np.savez(
        file,
        model=np.array(model),
        keys=np.array([list(key) for key in store], np.uint8),
        vectors=np.stack(list(store.values())),
    )
    atomic_write(path, file.getvalue())
