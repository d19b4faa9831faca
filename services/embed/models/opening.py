"""From a model's name to the model: the one place that knows all backends.

Backends are imported only where they are asked for: the default install has no PyTorch.
"""

import asyncio

from services.embed.models.base import Backend, EmbeddingModel, LocalModel
from services.embed.models.local import QueuedModel
from shared.errors import StartupError
from shared.modelstore.entry import ModelStoreError
from shared.modelstore.store import ModelStore
from shared.settings import Precision, Settings


async def open_model(name: str, backend: Backend, settings: Settings) -> EmbeddingModel:
    """Load the model. Raises StartupError where it can't be served."""
    if backend == "remote":
        from services.embed.models.remote import open_remote

        return await open_remote(name, settings)
    return QueuedModel(await asyncio.to_thread(_open_local, name, backend, settings), settings)


def stored_bytes(name: str, backend: Backend, settings: Settings) -> int:
    """What the model takes in memory at most, as far as can be told before it is loaded: the
    length of its files. 0 for one that is not in this process, or not in the store.
    """
    if backend == "remote":
        return 0
    try:
        entry = ModelStore(settings.models_dir).require(name)
    except ModelStoreError:  # loading it will say why
        return 0
    return sum(file.bytes for file in entry.files.values())


def _open_local(name: str, backend: Backend, settings: Settings) -> LocalModel:
    """On a thread: it reads and converts weights."""
    entry = ModelStore(settings.models_dir).require(name)
    if backend == "onnx":
        from services.embed.models.onnx import OnnxModel

        return OnnxModel(
            entry.name,
            entry.path,
            built_dir=settings.built_dir,
            precision=_onnx_precision(settings),
            threads=settings.embed_threads,
        )
    try:
        if backend == "flag":
            from services.embed.models.flag import FlagModel

            return FlagModel(entry.name, entry.path, entry.revision, settings)
        from services.embed.models.sentence_transformers import TorchModel

        return TorchModel(entry.name, entry.path, entry.revision, settings)
    except ImportError as error:
        raise StartupError(
            f"the backend {backend} can't be loaded ({error}): install it with "
            "`pip install -e '.[torch]'` in the checkout, or set REFDESK_EMBED_BACKEND=onnx"
        ) from None


def _onnx_precision(settings: Settings) -> Precision:
    precision = settings.embed_precision
    if precision == "auto":
        return "int8"
    if precision == "fp16" or precision == "bf16":
        raise StartupError(
            f"REFDESK_EMBED_PRECISION={precision} is for the backends on PyTorch; onnx has int8 "
            "and fp32"
        )
    return precision
