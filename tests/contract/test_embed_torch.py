"""The backends of embed on PyTorch: what they make, and which folders and settings they refuse."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.embed.models.base import Backend, Kind
from services.embed.models.opening import open_model
from services.embed.models.prompts import read_default_prompt
from shared.errors import StartupError
from shared.modelstore.folder import FolderSource
from shared.modelstore.sources import select
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.small_model import NAME

ON_CPU = Settings(embed_device="cpu")
EVERY: frozenset[Kind] = frozenset({"dense", "sparse", "tokens"})


@pytest.fixture(scope="module")
def folder(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.small_model import make_small_model

    return make_small_model(minilm_dir, tmp_path_factory.mktemp("torch") / NAME)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model to do harm to."""
    return shutil.copytree(folder, tmp_path / NAME)


def flag(folder: Path) -> Any:
    from services.embed.models.flag import FlagModel

    return FlagModel(NAME, folder, "r1", ON_CPU)


def library(folder: Path) -> Any:
    from services.embed.models.sentence_transformers import TorchModel

    return TorchModel(NAME, folder, "r1", ON_CPU)


def test_flag_makes_what_the_paper_says(folder: Path) -> None:
    """Chen et al. 2024, arXiv 2402.03216, section 3.2, worked out text by text with transformers.

    The heads are of a fixed seed: it shows what is made of them, not that it finds anything.
    """
    import torch
    from torch.nn.functional import linear, normalize, relu
    from transformers import AutoModel, AutoTokenizer

    texts = ["a cat sat on the mat, the cat", "short", "word " * 300, "naïve 日本語 \U0001f600"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    body = AutoModel.from_pretrained(folder).eval()
    word_weight, token_vector = (
        torch.load(folder / f"{head}_linear.pt", weights_only=True)
        for head in ("sparse", "colbert")
    )
    model = flag(folder)
    ours = model.run(model.tokenizer.tokenize(texts), EVERY)
    for text, one in zip(texts, ours, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = body(**inputs).last_hidden_state[0]
        assert one.dense is not None
        assert one.token_vectors is not None
        assert np.allclose(one.dense, normalize(hidden[0], dim=0), atol=1e-5)
        vectors = normalize(linear(hidden[1:], **token_vector), dim=1)
        assert np.allclose(one.token_vectors, vectors, atol=1e-5)
        largest: dict[int, float] = {}
        ids = inputs["input_ids"][0].tolist()
        weights = relu(linear(hidden, **word_weight))[:, 0].tolist()
        for token, weight in zip(ids, weights, strict=True):
            if weight > 0 and token not in tokenizer.all_special_ids:
                largest[token] = max(weight, largest.get(token, 0))
        assert one.sparse == pytest.approx(largest, abs=1e-5)
    assert any(one.sparse for one in ours)


def test_flag_makes_what_its_own_library_made(folder: Path) -> None:
    """The numbers that FlagEmbedding 1.4.2 gave for this model."""
    model = flag(folder)
    [made] = model.run(model.tokenizer.tokenize(["a cat sat on the mat"]), EVERY)
    assert made.dense is not None
    assert made.token_vectors is not None
    assert made.dense[:4] == pytest.approx(
        [-0.00038382, -0.00196092, -0.00192153, 0.00345736], abs=1e-6
    )
    assert made.token_vectors.shape == (7, 384)
    assert made.token_vectors[1][:4] == pytest.approx(
        [-0.0904645, 0.0140619, -0.0198462, 0.0908218], abs=1e-5
    )
    weights = {4937: 1.07481, 2006: 1.576262, 1996: 1.571599, 13523: 0.172903}
    assert made.sparse == pytest.approx(weights, abs=1e-5)


@pytest.mark.parametrize("open_it", [flag, library])
def test_whatever_is_wanted_the_body_runs_once(
    folder: Path, open_it: Callable[[Path], Any]
) -> None:
    model = open_it(folder)
    passes = []
    [layer] = [
        module for name, module in model._model.named_modules() if name.endswith("encoder.layer.0")
    ]
    layer.register_forward_hook(lambda *_: passes.append(1))
    model.run(model.tokenizer.tokenize(["a cat", "a dog"]), frozenset(model.info.kinds))
    assert len(passes) == 1


def test_the_store_takes_the_two_heads_and_no_other_pickle(folder: Path, tmp_path: Path) -> None:
    offered = ["model.safetensors", "colbert_linear.pt", "sparse_linear.pt", "config.json"]
    assert select([*offered, "other.pt", "pytorch_model.bin", "sub/sparse_linear.pt"], "it") == (
        sorted(offered)
    )
    assert select(["model.onnx", "sparse_linear.pt"], "it") == ["model.onnx"]
    entry = ModelStore(tmp_path).pull(FolderSource(folder, NAME)).entry
    assert {"colbert_linear.pt", "sparse_linear.pt"} <= set(entry.files)


class Malice:
    """What runs code when it is loaded as a pickle."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("head", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_head_that_is_code_is_not_run(copy: Path, tmp_path: Path, head: str) -> None:
    import torch

    witness = tmp_path / "it ran"
    torch.save({"weight": torch.ones(1, 384), "bias": Malice(witness)}, copy / head)
    with pytest.raises(StartupError, match=f"{head} is not the weights of a linear layer"):
        flag(copy)
    assert not witness.exists()
    torch.load(copy / head, weights_only=False)  # it would have been
    assert witness.exists()


def without_head(folder: Path) -> None:
    (folder / "sparse_linear.pt").unlink()


def cut_head(folder: Path) -> None:
    head = folder / "sparse_linear.pt"
    head.write_bytes(head.read_bytes()[:700])


def zipped_head(folder: Path) -> None:
    with zipfile.ZipFile(folder / "sparse_linear.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"no pickle")


def save_head(folder: Path, rows: int, columns: int, value: float = 1.0) -> None:
    import torch

    weight = torch.full((rows, columns), value)
    torch.save({"weight": weight, "bias": torch.ones(rows)}, folder / "sparse_linear.pt")


def narrow_head(folder: Path) -> None:
    save_head(folder, 1, 8)


def broad_head(folder: Path) -> None:
    save_head(folder, 5, 384)


def endless_head(folder: Path) -> None:
    save_head(folder, 1, 384, float("nan"))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def strange_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "none that there is"}))


def strange_default_prompt(folder: Path) -> None:
    prompts = {"prompts": {"query": "q: "}, "default_prompt_name": "title"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without_head, "sparse_linear.pt is missing"),
        (cut_head, "is not the weights of a linear layer"),
        (zipped_head, "is not the weights of a linear layer"),
        (narrow_head, r"\[1, 8\]"),
        (broad_head, r"\[5, 384\]"),
        (endless_head, "not finite"),
        (without_weights, "has no model.safetensors"),
        (cut_weights, "can't load the model"),
        (strange_config, "how long an input may be|can't load the model"),
        (strange_default_prompt, "'title'"),
    ],
)
def test_a_damaged_folder_is_refused_with_what_is_wrong(
    copy: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(copy)
    with pytest.raises(StartupError, match=words):
        flag(copy)
    if "head" not in harm.__name__ and harm is not without_weights:
        with pytest.raises(StartupError, match=words):
            library(copy)


def test_the_default_prompt_is_the_one_that_is_named(copy: Path) -> None:
    config = copy / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "q: ", "plain": ""}, "default_prompt_name": None}
    for name, expected in ((None, ""), ("query", "q: "), ("plain", "")):
        config.write_text(json.dumps(prompts | {"default_prompt_name": name}))
        assert read_default_prompt(copy) == expected
    config.unlink()
    assert read_default_prompt(copy) == ""


@pytest.mark.parametrize("backend", ["sentence-transformers", "flag"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
async def test_half_precision_is_near_the_full_one(
    folder: Path, tmp_path: Path, backend: Backend, precision: str
) -> None:
    ModelStore(tmp_path).pull(FolderSource(folder, NAME))
    settings = Settings(models_dir=tmp_path, embed_device="cpu")
    texts = ["a cat", "How do I reset my password?", "word " * 300]
    vectors = []
    for asked in ("fp32", precision):
        model = await open_model(
            NAME, backend, settings.model_copy(update={"embed_precision": asked})
        )
        readings = await model.read(texts, frozenset({"dense"}))
        vectors.append(np.stack([one.dense for one in readings if one.dense is not None]))
        assert model.info.precision == asked
        assert model.info.revision.endswith(f"-{asked}")
        await model.close()
    assert vectors[1].dtype == np.float32
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.999
    assert np.allclose(np.linalg.norm(vectors[1], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "settings", "words"),
    [
        ("sentence-transformers", {"embed_precision": "int8"}, "fp32, fp16 and bf16"),
        ("flag", {"embed_precision": "int8"}, "fp32, fp16 and bf16"),
        ("onnx", {"embed_precision": "fp16"}, "int8 and fp32"),
        ("onnx", {"embed_precision": "bf16"}, "int8 and fp32"),
        ("sentence-transformers", {"embed_device": "cuda"}, "finds no GPU .* REFDESK_EMBED_DEVICE"),
        ("flag", {"embed_device": "cuda"}, "finds no GPU .* REFDESK_EMBED_DEVICE"),
    ],
)
async def test_what_a_backend_does_not_have_is_said_at_the_start(
    models_dir: Path,
    tmp_path: Path,
    backend: Backend,
    settings: dict[str, Any],
    words: str,
) -> None:
    import torch

    if settings.get("embed_device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    wanted = Settings(models_dir=models_dir, data_dir=tmp_path, **settings)
    with pytest.raises(StartupError, match=words):
        await open_model("all-MiniLM-L6-v2", backend, wanted)
