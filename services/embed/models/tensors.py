"""What the backends on PyTorch have in common: where a model runs, and batches as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from services.embed.models.base import Vectors
from shared.encoder.tokenizer import Tokenized
from shared.errors import StartupError
from shared.settings import Settings

# They would cut into the log, and hold up no one for long enough to be watched.
transformers_logging.disable_progress_bar()

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Place:
    """Where a model runs and with which numbers."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "fp16", "bf16"]

    @property
    def dtype(self) -> torch.dtype:
        """The numbers as PyTorch calls them."""
        return _DTYPES[self.precision]

    @classmethod
    def choose(cls, settings: Settings) -> "Place":
        """The place that the settings ask for: by default the GPU in fp16, else the CPU in fp32.

        Raises StartupError for a GPU where PyTorch finds none, and for int8.
        """
        found = torch.cuda.is_available()
        if settings.embed_device == "cuda" and not found:
            raise StartupError(
                "REFDESK_EMBED_DEVICE=cuda, but PyTorch finds no GPU here: install the driver and "
                "a PyTorch that was built for it, or set REFDESK_EMBED_DEVICE=cpu"
            )
        on_gpu = found and settings.embed_device != "cpu"
        precision = settings.embed_precision
        if precision == "int8":
            raise StartupError(
                "REFDESK_EMBED_PRECISION=int8 is for the backend onnx; those on PyTorch have fp32, "
                "fp16 and bf16"
            )
        if precision == "auto":
            precision = "fp16" if on_gpu else "fp32"
        return cls("cuda" if on_gpu else "cpu", precision)

    def batch(self, texts: Sequence[Tokenized], padding: int) -> dict[str, torch.Tensor]:
        """A batch as the model takes it: `input_ids` and `attention_mask`, int64 [n, longest].

        padding: the token id that fills the rows of shorter texts.
        """
        shape = (len(texts), max(map(len, texts)))
        # Memory that stays where it is can be read by the GPU while the CPU goes on.
        pinned = self.device == "cuda"
        ids = torch.full(shape, padding, dtype=torch.int64, pin_memory=pinned)
        mask = torch.zeros(shape, dtype=torch.int64, pin_memory=pinned)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text.ids)
            mask[row, : len(text)] = 1
        return {
            "input_ids": ids.to(self.device, non_blocking=True),
            "attention_mask": mask.to(self.device, non_blocking=True),
        }


def unit_rows(vectors: torch.Tensor) -> Vectors:
    """The rows at length 1 as float32 [n, d], in memory of their own."""
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    rows: Vectors = unit.cpu().numpy()
    return rows


def unit_rows_by_text(padded: torch.Tensor, mask: torch.Tensor) -> list[Vectors]:
    """The unit rows of each text where `mask` is set, of vectors [n, t, d]: float32 [t, d] each.

    What is padding never leaves the device.
    """
    kept = mask.bool()
    rows = unit_rows(padded[kept])
    ends = np.cumsum(kept.sum(dim=1).cpu().numpy())
    # Copies, so that keeping one text's rows does not keep those of the whole batch.
    return [part.copy() for part in np.split(rows, ends[:-1])]


def weights_nbytes(model: torch.nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
