"""BGE-M3 and models like it, as FlagEmbedding trains them: vectors of texts, weights of words and
vectors of tokens from one forward pass. Needs the `torch` extra.

A text's vector is the first token's; a token's weight is relu(w·h + b) of its hidden state h, and
its vector W h + b. Source: Chen et al. 2024, "BGE M3-Embedding", arXiv 2402.03216, section 3.2. The
package FlagEmbedding itself is not needed: it brings tools for training, 250 MB of them, for three
lines of arithmetic.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from services.embed.models.base import Kind, ModelInfo, Reading, readings
from services.embed.models.prompts import read_default_prompt, read_prompts
from services.embed.models.tensors import Place, unit_rows, unit_rows_by_text, weights_nbytes
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.encoder.weights import WEIGHTS_FILE, ModelError
from shared.errors import StartupError
from shared.settings import Settings

_SPARSE_FILE = "sparse_linear.pt"
_TOKENS_FILE = "colbert_linear.pt"
# Before this version, loading "weights only" could run code all the same (CVE-2025-32434).
_SAFE_TORCH = (2, 6)


class _Model(torch.nn.Module):  # type: ignore[misc]  # PyTorch is not read by mypy
    """The body and what reads its hidden states."""

    def __init__(
        self, body: torch.nn.Module, word_weight: torch.nn.Linear, token_vector: torch.nn.Linear
    ) -> None:
        super().__init__()
        self.body = body
        self.word_weight = word_weight
        self.token_vector = token_vector


class FlagModel:
    """A LocalModel over a folder with a body in safetensors and BGE-M3's two heads.

    The token vectors lack that of the first token, as the model was trained. revision: of the
    model's files, as the model store knows it. Raises StartupError where the folder can't be used,
    or where there is no such device or precision.
    """

    def __init__(self, name: str, folder: Path, revision: str, settings: Settings) -> None:
        self._place = Place.choose(settings)
        prompts = read_prompts(folder)
        self.tokenizer = TextTokenizer(folder)
        torch.set_num_threads(settings.embed_threads)
        self._model, self._padding, self._wordless = _load(folder, self._place)
        self.nbytes = weights_nbytes(self._model)
        self.info = ModelInfo(
            model=name,
            revision=f"{revision}-flag-{self._place.precision}",
            dimension=int(self._model.body.config.hidden_size),
            max_tokens=self.tokenizer.max_tokens,
            special_tokens=self.tokenizer.special_tokens,
            precision=self._place.precision,
            backend="flag",
            prompts=prompts,
            default_prompt=read_default_prompt(folder),
            kinds=("dense", "sparse", "tokens"),
        )

    def run(self, batch: Sequence[Tokenized], wanted: frozenset[Kind]) -> list[Reading]:
        """See LocalModel."""
        inputs = self._place.batch(batch, self._padding)
        dense = sparse = tokens = None
        with torch.inference_mode():
            hidden = self._model.body(**inputs).last_hidden_state
            if "dense" in wanted:
                dense = unit_rows(hidden[:, 0])
            if "sparse" in wanted:
                weights = torch.relu(self._model.word_weight(hidden)).squeeze(-1).float().cpu()
                sparse = [
                    self._by_word(text, own.tolist())
                    for text, own in zip(batch, weights, strict=True)
                ]
            if "tokens" in wanted:
                vectors = self._model.token_vector(hidden[:, 1:])
                tokens = unit_rows_by_text(vectors, inputs["attention_mask"][:, 1:])
        return readings(batch, dense=dense, sparse=sparse, token_vectors=tokens)

    def close(self) -> None:
        """See LocalModel."""
        del self._model
        if self._place.device == "cuda":
            torch.cuda.empty_cache()

    def _by_word(self, text: Tokenized, weights: Sequence[float]) -> dict[int, float]:
        """The largest weight of each token of the text; its special ones have none."""
        largest: dict[int, float] = {}
        for token, weight in zip(text.ids, weights, strict=False):  # what is over is padding
            if weight > largest.get(token, 0.0) and token not in self._wordless:
                largest[token] = weight
        return largest


def _load(folder: Path, place: Place) -> tuple[_Model, int, frozenset[int]]:
    """The model, the id of its padding, and the ids of tokens that stand for no word."""
    if not (folder / WEIGHTS_FILE).is_file():
        raise StartupError(
            f"{folder} has no {WEIGHTS_FILE}: save the model again with transformers "
            "(`save_pretrained` writes that file) and pull the folder"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        body = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=place.dtype
        )
    except Exception as error:  # the library raises all kinds for a folder it can't read
        reason = " ".join(str(error).split())
        raise StartupError(
            f"transformers can't load the model in {folder}: {reason}; check it with "
            "`refdesk models verify`"
        ) from None
    width = int(body.config.hidden_size)
    model = _Model(
        body,
        _read_head(folder / _SPARSE_FILE, width, 1),
        _read_head(folder / _TOKENS_FILE, width, None),
    )
    model.to(device=place.device, dtype=place.dtype).eval()
    return model, tokenizer.pad_token_id or 0, frozenset(tokenizer.all_special_ids)


def _read_head(path: Path, width: int, outputs: int | None) -> torch.nn.Linear:
    """A linear layer. Nothing but tensors is read: the file is a pickle, which could run code.

    outputs: how many it must have; None: any number. Raises ModelError where it is not one,
    StartupError where this PyTorch can't read it safely.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _SAFE_TORCH:
        raise StartupError(
            f"PyTorch {torch.__version__} can't read {path.name} safely: install 2.6 or later"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weight, bias = state["weight"].float(), state["bias"].float()
        rows = weight.shape[0] if outputs is None else outputs
        sound = weight.shape == (rows, width) and bias.shape == (rows,)
    except FileNotFoundError:
        raise ModelError(path, "is missing") from None
    except Exception:  # whatever a damaged or malicious file makes the reader raise
        raise ModelError(path, "is not the weights of a linear layer") from None
    if not sound:
        shapes = f"{list(weight.shape)} and {list(bias.shape)}"
        raise ModelError(path, f"has the shapes {shapes}, which don't fit a model of {width}")
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ModelError(path, "has numbers that are not finite")
    head = torch.nn.Linear(width, rows)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head
