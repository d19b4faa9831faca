"""Any sentence-transformers cross-encoder, through PyTorch. Needs the `torch` extra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from services.rerank.models.pairs import PairModel, relevance_logit, require_classifier
from shared.encoder.pairs import PairTokenizer
from shared.encoder.tokenizer import Tokenized
from shared.encoder.weights import ModelError
from shared.settings import RerankBackend, Settings


def open_torch_cross_encoder(
    name: str,
    folder: Path,
    revision: str,
    settings: Settings,
    *,
    backend: RerankBackend = "sentence-transformers",
) -> PairModel:
    """The cross-encoder in `folder`, in fp16 on a GPU where there is one, else in fp32.

    revision: of the model's files, as the model store knows it. Raises StartupError where the
    folder can't be used.
    """
    require_classifier(folder)
    tokenizer = PairTokenizer(folder)
    torch.set_num_threads(settings.rerank_threads)
    loaded = _Loaded(folder)
    return PairModel(
        name,
        folder,
        settings,
        backend=backend,
        revision=f"{revision}-torch-{loaded.precision}",
        precision=loaded.precision,
        tokenizer=tokenizer,
        judge=loaded.judge,
        release=loaded.release,
    )


class _Loaded:
    """The model in memory. precision: of its arithmetic."""

    def __init__(self, folder: Path) -> None:
        gpu = torch.cuda.is_available()
        self.precision = "fp16" if gpu else "fp32"
        try:
            model = CrossEncoder(
                str(folder),
                device="cuda" if gpu else "cpu",
                local_files_only=True,
                model_kwargs={
                    "dtype": torch.float16 if gpu else torch.float32,
                    "use_safetensors": True,
                },
            )
        except Exception as error:  # the libraries below raise all kinds for a bad folder
            reason = " ".join(str(error).split())
            raise ModelError(
                folder, f"can't be loaded by sentence-transformers ({reason})"
            ) from None
        if model.num_labels not in (1, 2):
            raise ModelError(
                folder, f"tells {model.num_labels} classes apart, and not how relevant a text is"
            )
        self._takes = frozenset(model.tokenizer.model_input_names)
        self._model = model.model.eval()

    def judge(self, batch: Sequence[Tokenized]) -> NDArray[np.float32]:
        """The logit of each pair, float32 [n]."""
        longest = max(map(len, batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, pair in enumerate(batch):
            ids[row, : len(pair)] = torch.tensor(pair.ids)
            mask[row, : len(pair)] = 1
            types[row, : len(pair.types)] = torch.tensor(pair.types)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        device = self._model.device
        with torch.inference_mode():
            labels = self._model(
                **{name: given.to(device) for name, given in inputs.items() if name in self._takes}
            ).logits
        found: NDArray[np.float32] = labels.float().cpu().numpy()
        return relevance_logit(found)

    def release(self) -> None:
        """Let go of the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
