"""The one place that knows every backend of the curator.

Backends are imported only where they are asked for: each brings libraries of its own that take
their part of a start, and the default install has no PyTorch.
"""

from services.rerank.models.base import RerankModel
from shared.errors import StartupError
from shared.modelstore.store import ModelStore
from shared.settings import Settings


def open_model(settings: Settings) -> RerankModel:
    """Open the model that the settings name, with what REFDESK_RERANK_BACKEND says.

    Raises StartupError where it can't be served, with what to do about it.
    """
    backend = settings.rerank_backend
    if backend == "remote":
        from services.rerank.models.remote import RemoteModel

        return RemoteModel(settings)
    entry = ModelStore(settings.models_dir).require(settings.rerank_model)
    if backend == "late-interaction":
        from services.rerank.models.late_interaction import LateInteraction

        return LateInteraction(entry.name, entry.path, settings)
    if backend == "cross-encoder":
        from services.rerank.models.cross_encoder import open_cross_encoder

        return open_cross_encoder(entry.name, entry.path, settings)
    try:
        if backend == "flag":
            from services.rerank.models.flag import open_flag as open_torch
        else:
            from services.rerank.models.sentence_transformers import (
                open_torch_cross_encoder as open_torch,
            )
    except ImportError as error:
        raise StartupError(
            f"the backend {backend} can't be loaded ({error}): install it with "
            "`pip install -e '.[torch]'` in the checkout, or set "
            "REFDESK_RERANK_BACKEND=late-interaction"
        ) from None
    return open_torch(entry.name, entry.path, entry.revision, settings)
