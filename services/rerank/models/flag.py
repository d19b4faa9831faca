"""The BGE rerankers, as FlagEmbedding scores with them. Needs the `torch` extra.

Its FlagReranker reads a pair with a classifier, as any cross-encoder does. Its FlagLLMReranker asks
a language model, and score(q, d) = the logit of "Yes" as the next token. Source: `BaseReranker` and
`BaseLLMReranker` of https://github.com/FlagOpen/FlagEmbedding, `inference/reranker`; a test holds
both to what that source computes. It is not called itself: it runs a batch twice, and tries for
ever on one that fails.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from services.rerank.models.pairs import PairModel
from services.rerank.models.sentence_transformers import open_torch_cross_encoder
from shared.encoder.pairs import PairTokenizer, Template
from shared.encoder.tokenizer import Tokenized
from shared.encoder.weights import CONFIG_FILE, ModelError, read_json
from shared.errors import StartupError
from shared.settings import Settings

# Classes of FlagEmbedding's own, which can't even be built with transformers 5.
_BROKEN = ("LayerWiseMiniCPMForCausalLM", "CostWiseGemmaForCausalLM")
_LEADS = ("A: ", "B: ")
_SEPARATOR = "\n"
_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    architectures: tuple[str, ...] = ()


def open_flag(name: str, folder: Path, revision: str, settings: Settings) -> PairModel:
    """The BGE reranker in `folder`, a classifier or a language model by its config.json.

    revision: of the model's files, as the model store knows it. Raises StartupError where the
    folder can't be used.
    """
    architecture = _architecture(folder)
    if architecture in _BROKEN:
        raise StartupError(
            f"{name} is a {architecture}, which needs transformers 4 and does not run here: take "
            "bge-reranker-v2-m3 or bge-reranker-v2-gemma, or serve it elsewhere and set "
            "REFDESK_RERANK_BACKEND=remote"
        )
    if not architecture.endswith("ForCausalLM"):
        return open_torch_cross_encoder(name, folder, revision, settings, backend="flag")
    torch.set_num_threads(settings.rerank_threads)
    loaded = _LanguageModel(folder)
    return PairModel(
        name,
        folder,
        settings,
        backend="flag",
        revision=f"{revision}-torch-{loaded.precision}",
        precision=loaded.precision,
        tokenizer=loaded.tokenizer,
        judge=loaded.judge,
        release=loaded.release,
    )


def _architecture(folder: Path) -> str:
    """The model's class, as its config.json names it."""
    path = folder / CONFIG_FILE
    try:
        names = _Config.model_validate(read_json(path)).architectures
    except ValidationError:
        names = ()
    if not names:
        raise ModelError(path, "does not name the model's architecture")
    return names[0]


class _LanguageModel:
    """The model in memory, in bf16 on a GPU where there is one, else in fp32.

    precision: of its arithmetic.
    """

    def __init__(self, folder: Path) -> None:
        gpu = torch.cuda.is_available()
        self.precision = "bf16" if gpu else "fp32"
        try:
            words = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.bfloat16 if gpu else torch.float32,
            )
        except Exception as error:  # the library raises all kinds for a bad folder
            reason = " ".join(str(error).split())
            raise ModelError(folder, f"can't be loaded by transformers ({reason})") from None
        self._padding: int = words.pad_token_id or 0
        self._yes = _ids(words, "Yes")[0]
        self.tokenizer = PairTokenizer(folder, _template(words))
        self._model = model.to("cuda" if gpu else "cpu").eval()

    def judge(self, batch: Sequence[Tokenized]) -> NDArray[np.float32]:
        """The logit of each pair, float32 [n]."""
        shape = (len(batch), max(map(len, batch)))
        ids = torch.full(shape, self._padding, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.int64)
        # Padding goes to the left, so that all rows end with the token that the answer follows.
        for row, pair in enumerate(batch):
            ids[row, shape[1] - len(pair) :] = torch.tensor(pair.ids)
            mask[row, shape[1] - len(pair) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        device = self._model.device
        with torch.inference_mode():
            last = self._model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                position_ids=positions.to(device),
                logits_to_keep=1,  # the other tokens' are many times the size of the rest
                use_cache=False,
            ).logits[:, -1, self._yes]
        found: NDArray[np.float32] = last.float().cpu().numpy()
        return found

    def release(self) -> None:
        """Let go of the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """What a language model was trained to read."""
    start = tokenizer.bos_token_id
    before = [] if start is None or start == tokenizer.pad_token_id else [start]
    between = _ids(tokenizer, _SEPARATOR)
    after = between + _ids(tokenizer, _PROMPT)
    no_types = ([0] * len(before), 0, [0] * len(between), 0, [0] * len(after))
    return Template(before, between, after, no_types, _LEADS)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found
