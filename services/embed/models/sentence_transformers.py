"""Any sentence-transformers model, through PyTorch. Needs the `torch` extra."""

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from services.embed.models.base import Kind, ModelInfo, Reading, readings
from services.embed.models.prompts import read_default_prompt, read_prompts
from services.embed.models.tensors import Place, unit_rows, unit_rows_by_text, weights_nbytes
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.errors import StartupError
from shared.settings import Settings


class TorchModel:
    """A LocalModel over a sentence-transformers folder.

    revision: of the model's files, as the model store knows it. Raises StartupError where the
    folder can't be used, or where there is no such device or precision.
    """

    def __init__(self, name: str, folder: Path, revision: str, settings: Settings) -> None:
        self._place = Place.choose(settings)
        prompts = read_prompts(folder)
        self.tokenizer = TextTokenizer(folder)
        torch.set_num_threads(settings.embed_threads)
        self._model = _load(folder, self._place)
        self._padding: int = self._model.tokenizer.pad_token_id or 0
        self.nbytes = weights_nbytes(self._model)
        self.info = ModelInfo(
            model=name,
            revision=f"{revision}-torch-{self._place.precision}",
            dimension=int(self._model.get_embedding_dimension()),
            max_tokens=self.tokenizer.max_tokens,
            special_tokens=self.tokenizer.special_tokens,
            precision=self._place.precision,
            backend="sentence-transformers",
            prompts=prompts,
            default_prompt=read_default_prompt(folder),
            kinds=("dense", "tokens"),
        )

    def run(self, batch: Sequence[Tokenized], wanted: frozenset[Kind]) -> list[Reading]:
        """See LocalModel."""
        inputs = self._place.batch(batch, self._padding)
        mask = inputs["attention_mask"]
        with torch.inference_mode():
            made = self._model(inputs)
            dense = unit_rows(made["sentence_embedding"]) if "dense" in wanted else None
            tokens = (
                unit_rows_by_text(made["token_embeddings"], mask) if "tokens" in wanted else None
            )
        return readings(batch, dense=dense, token_vectors=tokens)

    def close(self) -> None:
        """See LocalModel."""
        del self._model
        if self._place.device == "cuda":
            torch.cuda.empty_cache()


def _load(folder: Path, place: Place) -> SentenceTransformer:
    try:
        model = SentenceTransformer(
            str(folder),
            device=place.device,
            local_files_only=True,
            model_kwargs={"dtype": place.dtype, "use_safetensors": True},
        )
    except Exception as error:  # the libraries below raise all kinds for a folder they can't read
        reason = " ".join(str(error).split())
        raise StartupError(
            f"sentence-transformers can't load the model in {folder}: {reason}; check it with "
            "`refdesk models verify`"
        ) from None
    if not hasattr(model[0], "auto_model"):
        raise StartupError(
            f"the model in {folder} begins with {type(model[0]).__name__}: embed runs models that "
            "begin with a Transformer"
        )
    return model.to(place.dtype).eval()
