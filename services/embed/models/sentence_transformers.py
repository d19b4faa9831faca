"""Any sentence-transformers model, through PyTorch. Needs the `torch` extra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from services.embed.models.base import ModelInfo, Vectors
from shared.encoder.tokenizer import TOKENIZER_FILE, TextTokenizer, Tokenized


class TorchModel:
    """An EmbeddingModel over a sentence-transformers folder, on a GPU where there is one.

    revision: of the model's files, as the model store knows it.
    """

    def __init__(self, name: str, folder: Path, revision: str, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(folder), local_files_only=True)
        self._tokenizer = TextTokenizer(folder)
        self._definition = folder / TOKENIZER_FILE
        self.info = ModelInfo(
            model=name,
            revision=f"{revision}-torch",
            dimension=int(self._model.get_embedding_dimension()),
            max_tokens=self._tokenizer.max_tokens,
            special_tokens=self._tokenizer.special_tokens,
            precision="fp32",
            backend="sentence-transformers",
        )

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See EmbeddingModel."""
        return self._tokenizer.tokenize(texts)

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """See EmbeddingModel."""
        longest = max(map(len, batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = torch.tensor(text.ids)
            mask[row, : len(text)] = 1
        device = self._model.device
        with torch.inference_mode():
            answer = self._model({"input_ids": ids.to(device), "attention_mask": mask.to(device)})
        pooled = torch.nn.functional.normalize(answer["sentence_embedding"], dim=1)
        vectors: Vectors = pooled.cpu().numpy().astype(np.float32)
        return vectors

    def tokenizer_json(self) -> bytes:
        """See EmbeddingModel."""
        return self._definition.read_bytes()
