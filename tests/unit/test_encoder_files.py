"""What is on disk: the model's files, and the graph that is built from them.

The model is the first layer of all-MiniLM-L6-v2 with its first 5,000 words: its graph is built in a
tenth of the time.
"""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.encoder.encoder import Encoder
from shared.encoder.weights import ModelError
from shared.errors import StartupError
from tests.fulldisk import files_no_longer_than

WORDS = 5000
LATER = tuple(f"encoder.layer.{number}." for number in range(1, 6))
TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def small(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, outside of the store."""
    folder = tmp_path_factory.mktemp("small") / "model"
    ignored = shutil.ignore_patterns("entry.json", "*.safetensors")
    shutil.copytree(minilm_dir, folder, ignore=ignored)
    tensors = load_file(minilm_dir / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(LATER)}
    kept[TABLE] = kept[TABLE][:WORDS].copy()
    save_file(kept, folder / "model.safetensors")
    _change(folder / "config.json", num_hidden_layers=1, vocab_size=WORDS)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: id_ for word, id_ in words.items() if id_ < WORDS}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    return folder


@pytest.fixture(scope="module")
def built(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the int8 graph in it."""
    folder = tmp_path_factory.mktemp("built")
    Encoder.open(small, folder, "int8", 1)
    return folder


@pytest.fixture
def model(small: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    return shutil.copytree(small, tmp_path / "model")


def graphs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx"))


def vector(encoder: Encoder) -> list[float]:
    numbers: list[float] = encoder.embed(encoder.tokenizer.tokenize(["a cat"]))[0].tolist()
    return numbers


def test_the_graph_is_built_once_under_a_name_that_tells_weights_and_precision(
    small: Path, built: Path
) -> None:
    [graph] = graphs(built)
    before = graph.stat()
    encoder = Encoder.open(small, built, "int8", 1)
    assert graphs(built) == [graph]
    assert graph.stat().st_mtime_ns == before.st_mtime_ns
    weights, precision = encoder.revision.split("-")
    assert graph.name.startswith(f"{weights}-")
    assert f"-{precision}-" in graph.name
    assert encoder.dimension == 384


def test_each_precision_has_a_graph_and_a_revision_of_its_own(
    small: Path, built: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(built, tmp_path / "built")
    revisions = {Encoder.open(small, folder, p, 1).revision for p in ("int8", "fp32")}
    assert len(revisions) == len(graphs(folder)) == 2


def _cut_short(graph: Path) -> None:
    graph.write_bytes(graph.read_bytes()[:-1000])


def _flip_a_bit(graph: Path) -> None:
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def _empty(graph: Path) -> None:
    graph.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut_short, _flip_a_bit, _empty])
def test_a_damaged_graph_is_noticed_and_built_again(
    small: Path, built: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = tmp_path / "built"
    shutil.copytree(built, copy)
    [graph] = graphs(copy)
    sound = graph.read_bytes()
    damage(graph)
    encoder = Encoder.open(small, copy, "int8", 1)
    assert [path.read_bytes() for path in graphs(copy)] == [sound]
    assert vector(encoder) == vector(Encoder.open(small, built, "int8", 1))


def test_two_openers_at_once_end_with_one_graph(small: Path, tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def opened(_: int) -> Encoder:
        together.wait()
        return Encoder.open(small, tmp_path, "int8", 1)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(opened, range(2))
    assert len(graphs(tmp_path)) == 1
    assert vector(first) == vector(second)


def test_a_full_disk_is_one_clear_error_and_leaves_no_part_of_a_graph(
    small: Path, tmp_path: Path
) -> None:
    with files_no_longer_than(1 << 20), pytest.raises(StartupError, match="REFDESK_DATA_DIR"):
        Encoder.open(small, tmp_path, "int8", 1)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
    assert len(vector(Encoder.open(small, tmp_path, "int8", 1))) == 384


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}), "utf-8")


def _change_tensors(model: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = model / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)


BIAS = "encoder.layer.0.output.dense.bias"


@pytest.mark.parametrize(
    ("damage", "file", "fault"),
    [
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors", "can't be read"),
        (
            lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 4096),
            "model.safetensors",
            "is damaged",
        ),
        (lambda m: _cut_short(m / "model.safetensors"), "model.safetensors", "is damaged"),
        (
            lambda m: _change_tensors(m, lambda t: t.pop(BIAS)),
            "model.safetensors",
            f"lacks a readable tensor {BIAS}",
        ),
        (
            lambda m: _change_tensors(m, lambda t: t.update({BIAS: t[BIAS][:100]})),
            "model.safetensors",
            "shape",
        ),
        (
            lambda m: _change_tensors(m, lambda t: t[BIAS].fill(np.nan)),
            "model.safetensors",
            "not finite",
        ),
        (lambda m: (m / "config.json").write_text("{"), "config.json", "is not JSON"),
        (lambda m: _change(m / "config.json", model_type="gpt2"), "config.json", "model_type"),
        (lambda m: _change(m / "config.json", hidden_act="relu"), "config.json", "hidden_act"),
        (
            lambda m: _change(m / "config.json", num_attention_heads=7),
            "config.json",
            "num_attention_heads",
        ),
        (lambda m: _change(m / "config.json", vocab_size=5), "model.safetensors", "shape"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer.json", "not a tokenizer"),
        (lambda m: (m / "tokenizer.json").unlink(), "tokenizer.json", "can't be read"),
        (
            lambda m: (m / "sentence_bert_config.json").write_text('{"max_seq_length": 0}'),
            "sentence_bert_config.json",
            "max_seq_length",
        ),
    ],
)
def test_a_damaged_model_is_refused_with_the_file_the_fault_and_the_way_out(
    model: Path, tmp_path: Path, damage: Callable[[Path], object], file: str, fault: str
) -> None:
    damage(model)
    with pytest.raises(ModelError, match="refdesk models verify") as caught:
        Encoder.open(model, tmp_path / "built", "int8", 1)
    assert str(model / file) in str(caught.value)
    assert fault in str(caught.value)
    assert not graphs(tmp_path / "built")


def test_weights_that_are_not_the_stores_are_refused_even_if_they_can_be_read(
    minilm_dir: Path, tmp_path: Path
) -> None:
    model = tmp_path / minilm_dir.parent.name / minilm_dir.name
    shutil.copytree(minilm_dir, model)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        Encoder.open(model, tmp_path / "built", "int8", 1)


def test_a_model_that_pools_otherwise_is_refused_with_the_backend_that_can(
    model: Path, tmp_path: Path
) -> None:
    _change(model / "1_Pooling" / "config.json", pooling_mode_cls_token=True)
    with pytest.raises(StartupError, match="sentence-transformers"):
        Encoder.open(model, tmp_path / "built", "int8", 1)
