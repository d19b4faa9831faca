"""Any sentence-transformers model, through PyTorch. Needs the `torch` extra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from services.embed.models.base import ModelInfo, Vectors
from services.embed.models.prompts import read_prompts
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
            prompts=read_prompts(folder),
        )

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See EmbeddingModel."""
        return self._tokenizer.tokenize(texts)

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """See EmbeddingModel."""
        pooled = torch.nn.functional.normalize(self._run(batch)["sentence_embedding"], dim=1)
        vectors: Vectors = pooled.cpu().numpy().astype(np.float32)
        return vectors

    def token_vectors(self, batch: Sequence[Tokenized]) -> list[Vectors]:
        """See EmbeddingModel."""
        unit = torch.nn.functional.normalize(self._run(batch)["token_embeddings"], dim=2)
        padded: Vectors = unit.cpu().numpy().astype(np.float32)
        return [vectors[: len(text)].copy() for vectors, text in zip(padded, batch, strict=True)]

    def _run(self, batch: Sequence[Tokenized]) -> dict[str, torch.Tensor]:
        longest = max(map(len, batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = torch.tensor(text.ids)
            mask[row, : len(text)] = 1
        device = self._model.device
        with torch.inference_mode():
            answer: dict[str, torch.Tensor] = self._model(
                {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
            )
        return answer

    def tokenizer_json(self) -> bytes:
        """See EmbeddingModel."""
        return self._definition.read_bytes()
