"""The flag backend scores as FlagEmbedding defines it, on small models with random weights."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from services.rerank.app import create_app
from services.rerank.models.base import TextTooLongError
from services.rerank.models.pairs import PairModel
from shared.encoder.weights import ModelError
from shared.errors import StartupError
from shared.settings import Settings
from tests.random_model import save_random_model
from tests.suite import serving

QUERY = "How do I reset my password?"
DOCUMENTS = [
    "The cafeteria opens at noon.",
    "To reset your password, open the account page and choose 'forgot password'.",
    "Übung macht den Meister 🙂",
    "x",
    "Passwords must have twelve characters. " * 3,
]
POSITIONS = 256

Open = Callable[[Path], PairModel]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a byte-level tokenizer, as the LLM-based rerankers are made."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llm")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*DOCUMENTS, QUERY, "Yes", "No", "A: ", "B: "], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    save_random_model(
        "LlamaForCausalLM",
        folder,
        vocab_size=len(fast),
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
    )
    return folder


@pytest.fixture(scope="module")
def classifier(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with one label and the words of all-MiniLM-L6-v2."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = AutoTokenizer.from_pretrained(str(minilm_dir))
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    save_random_model(
        "BertForSequenceClassification",
        folder,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.5,
    )
    return folder


def open_small(folder: Path) -> PairModel:
    from services.rerank.models.flag import open_flag

    return open_flag("small", folder, "r1", Settings())


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    kept: list[PairModel] = []

    def make(folder: Path) -> PairModel:
        kept.append(open_small(folder))
        return kept[-1]

    yield make
    for model in kept:
        await model.close()


@pytest.fixture(params=["language_model", "classifier"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def label_of_the_pair(folder: Path, text: str) -> float:
    """What FlagReranker gives: the logit of the only label (`BaseReranker` of FlagEmbedding)."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pair = AutoTokenizer.from_pretrained(folder)(QUERY, text, return_tensors="pt")
    return float(model(**pair).logits[0, 0])


def logit_of_yes(folder: Path, text: str) -> float:
    """What FlagLLMReranker gives, whose words these are: the logit of "Yes" after both texts and
    the question (`BaseLLMReranker` of FlagEmbedding)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    ids = [tokenizer.bos_token_id]
    for part in (f"A: {QUERY}", "\n", f"B: {text}", "\n", asked):
        ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    [yes, *_] = tokenizer("Yes", add_special_tokens=False)["input_ids"]
    return float(model(torch.tensor([ids])).logits[0, -1, yes])


async def test_the_scores_are_those_of_flagembedding(folder: Path, opened: Open) -> None:
    """FlagEmbedding 1.4.2 itself was within 1e-5 of what is expected here."""
    import torch

    own = logit_of_yes if "llm" in folder.name else label_of_the_pair
    with torch.no_grad():
        expected = [own(folder, text) for text in DOCUMENTS]
    scored = await opened(folder).score(QUERY, DOCUMENTS)
    assert scored.raw_scores == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1
    assert sorted(range(5), key=scored.scores.__getitem__) == sorted(
        range(5), key=expected.__getitem__
    )
    assert all(0 <= score <= 1 for score in scored.scores)


async def test_a_score_depends_on_nothing_else_in_the_request(folder: Path, opened: Open) -> None:
    model = opened(folder)
    together = await model.score(QUERY, [*DOCUMENTS, "", DOCUMENTS[0]])
    for place, text in enumerate(DOCUMENTS):
        alone = await model.score(QUERY, [text])
        assert alone.raw_scores[0] == pytest.approx(together.raw_scores[place], abs=1e-4)
    assert together.scores[5] == 0.0
    assert together.raw_scores[5] < min(together.raw_scores[:5])
    assert together.raw_scores[6] == together.raw_scores[0]
    assert together.tokens is not None
    assert together.tokens > sum(together.document_tokens or [])


async def test_a_long_text_is_cut_and_told_or_refused(folder: Path, opened: Open) -> None:
    model = opened(folder)
    scored = await model.score(QUERY, ["word " * 500, "x"])
    assert scored.truncated[0] > 200
    assert scored.truncated[1] == 0
    end = await model.score(QUERY, ["word " * 500 + "Meister", "x"], keep="end")
    start = await model.score(QUERY, ["word " * 500 + "Meister", "x"])
    assert end.raw_scores[0] != start.raw_scores[0]
    with pytest.raises(TextTooLongError) as caught:
        await model.score(QUERY, ["x", "word " * 500], whole=True)
    assert caught.value.place == 1
    assert caught.value.tokens > caught.value.limit
    with pytest.raises(TextTooLongError) as caught:
        await model.score("word " * 500, ["x"], whole=True)
    assert caught.value.place is None
    limited = await model.score(QUERY, [DOCUMENTS[1]], max_tokens=2)
    assert limited.document_tokens == [2]


async def test_the_service_tells_its_backend(language_model: Path) -> None:
    app = create_app(Settings(), open_small(language_model))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        info = (await client.get("/info")).json()
        assert (info["backend"], info["calibration"]) == ("flag", "none")
        assert info["max_tokens"] == POSITIONS
        answer = await client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        assert sorted(one["index"] for one in answer.json()["results"]) == [0, 1, 2, 3, 4]
        body: dict[str, Any] = {"query": QUERY, "texts": ["word " * 500], "truncate": False}
        refused = await client.post("/rerank", json=body)
        assert refused.status_code == 413
        assert refused.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    "name", ["LayerWiseMiniCPMForCausalLM", "CostWiseGemmaForCausalLM", "NobodysForCausalLM"]
)
def test_a_model_that_cannot_be_run_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name]}))
    with pytest.raises(StartupError, match=name if "Nobody" not in name else "transformers"):
        open_small(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"architectures": []}', '{"architectures": 1}', "{"])
def test_a_config_that_names_no_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        open_small(tmp_path)


def test_a_tokenizer_that_is_missing_is_said_so(language_model: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((language_model / file).read_bytes())
    with pytest.raises(ModelError, match=str(tmp_path)):
        open_small(tmp_path)
