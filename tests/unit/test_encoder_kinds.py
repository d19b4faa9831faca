"""Models of other kinds than the default one: how they pool, RoBERTa's positions, ready graphs.

The models are small and have random weights: every number of theirs still has to be right.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from shared.encoder.encoder import Encoder
from shared.encoder.weights import ModelError
from shared.errors import StartupError

TEXTS = ["a cat", "How do I reset my password?", "Ärger 🙂 " * 9, "word " * 100]
WINDOW = 64


def _settings(kind: str) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 30522,
        "max_position_embeddings": WINDOW + (2 if kind == "roberta" else 0),
        "type_vocab_size": 1 if kind == "roberta" else 2,
        "initializer_range": 0.2,
        "attn_implementation": "eager",
    }


def _saved(kind: str, pooling: str, minilm_dir: Path, folder: Path) -> Any:
    """A sentence-transformers model with random weights, saved to the folder."""
    import sentence_transformers as library
    import torch
    import transformers

    torch.manual_seed(0)
    make = {
        "bert": lambda: transformers.BertModel(transformers.BertConfig(**_settings(kind))),
        "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**_settings(kind))),
    }[kind]
    body = folder.with_name(f"{folder.name}-body")
    make().eval().save_pretrained(body)
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(minilm_dir / name, body)
    (body / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": WINDOW})
    )
    modules = library.sentence_transformer.modules
    transformer = modules.Transformer(str(body))
    model = library.SentenceTransformer(
        modules=[transformer, modules.Pooling(32, pooling_mode=pooling)], device="cpu"
    )
    model.save(str(folder))
    return model


@pytest.fixture(scope="module")
def made(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models by kind and pooling, and sentence-transformers' vectors beside them."""
    root = tmp_path_factory.mktemp("kinds")
    folders = {}
    for kind, pooling in (("bert", "mean"), ("bert", "cls"), ("roberta", "mean")):
        folder = root / f"{kind}-{pooling}"
        model = _saved(kind, pooling, minilm_dir, folder)
        np.save(root / f"{kind}-{pooling}.npy", model.encode(TEXTS, normalize_embeddings=True))
        folders[f"{kind}-{pooling}"] = folder
    return folders


def expected(folder: Path) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = np.load(folder.with_suffix(".npy"))
    return vectors


def embedded(folder: Path, built: Path) -> NDArray[np.float32]:
    encoder = Encoder.open(folder, built, "fp32", 2)
    try:
        return encoder.embed(encoder.tokenizer.tokenize(TEXTS))
    finally:
        encoder.close()


@pytest.mark.parametrize("name", ["bert-mean", "bert-cls", "roberta-mean"])
def test_a_graph_built_from_the_weights_gives_the_vectors_of_the_library(
    made: dict[str, Path], tmp_path: Path, name: str
) -> None:
    found = embedded(made[name], tmp_path)
    assert (found * expected(made[name])).sum(axis=1).min() >= 0.9999
    assert np.abs(found - expected(made[name])).max() < 1e-4


def test_the_pooling_is_part_of_the_revision_and_the_mean_is_not_named(
    made: dict[str, Path], tmp_path: Path
) -> None:
    mean, first = (
        Encoder.open(made[name], tmp_path, "fp32", 1).revision for name in ("bert-mean", "bert-cls")
    )
    assert first == f"{mean}-cls"


def test_a_folder_that_says_nothing_of_pooling_takes_the_mean(
    made: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(made["bert-mean"], folder)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    assert np.abs(embedded(folder, tmp_path) - expected(made["bert-mean"])).max() < 1e-4


def test_modules_after_the_encoder_are_refused_with_the_backend_that_has_them(
    made: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(made["bert-mean"], folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 9, "name": "9", "path": "9_Dense", "type": "some.where.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(StartupError, match=r"Dense.*sentence-transformers"):
        Encoder.open(folder, tmp_path, "fp32", 1)


def test_both_kinds_of_vector_from_one_run_are_those_of_two_runs(
    made: dict[str, Path], tmp_path: Path
) -> None:
    encoder = Encoder.open(made["bert-cls"], tmp_path, "fp32", 2)
    batch = encoder.tokenizer.tokenize(TEXTS)
    vectors, of_tokens = encoder.both(batch)
    assert np.array_equal(vectors, encoder.embed(batch))
    for found, alone in zip(of_tokens, encoder.token_vectors(batch), strict=True):
        assert np.array_equal(found, alone)


def _exported(source: Path, folder: Path) -> Path:
    """The model in `source` as an exporter leaves it: a graph and the tokenizer's files alone."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    sample = torch.ones((2, 5), dtype=torch.int64)
    (folder / "onnx").mkdir(parents=True)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)[0]

    torch.onnx.export(
        Hidden(),
        (sample, sample, torch.zeros_like(sample)),
        str(folder / "onnx" / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "n", 1: "t"} for name in [*names, "last_hidden_state"]},
        dynamo=False,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    return folder


@pytest.fixture(scope="module")
def ready(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an exported graph, without config.json."""
    return _exported(made["bert-mean"], tmp_path_factory.mktemp("ready") / "model")


def test_an_exported_graph_gives_the_vectors_of_the_library_without_a_config(
    ready: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    encoder = Encoder.open(ready, tmp_path / "built", "int8", 2)
    found = encoder.embed(encoder.tokenizer.tokenize(TEXTS))
    assert (found * expected(made["bert-mean"])).sum(axis=1).min() >= 0.9999
    assert encoder.dimension == 32
    assert encoder.tokenizer.max_tokens == WINDOW
    assert encoder.precision == "as exported"
    assert encoder.nbytes == (ready / "onnx" / "model.onnx").stat().st_size
    assert not (tmp_path / "built").exists()


def _graph(folder: Path) -> Path:
    return folder / "onnx" / "model.onnx"


def _changed(ready: Path, folder: Path, change: Callable[[Any], None], **saving: Any) -> Path:
    """A copy of the folder with another graph."""
    shutil.copytree(ready, folder)
    model = onnx.load(_graph(folder))
    change(model)
    _graph(folder).unlink()
    onnx.save(model, _graph(folder), **saving)
    return folder


def test_weights_in_a_file_of_their_own_are_read_and_are_part_of_the_revision(
    ready: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    folder = _changed(
        ready,
        tmp_path / "model",
        lambda model: None,
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    encoder = Encoder.open(folder, tmp_path, "fp32", 1)
    found = encoder.embed(encoder.tokenizer.tokenize(TEXTS))
    assert np.abs(found - expected(made["bert-mean"])).max() < 1e-4
    data = _graph(folder).with_name("model.onnx_data")
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    assert Encoder.open(folder, tmp_path, "fp32", 1).revision != encoder.revision
    data.unlink()
    with pytest.raises(ModelError, match="can't be loaded by ONNX Runtime"):
        Encoder.open(folder, tmp_path, "fp32", 1)


def _pools(model: Any) -> None:
    """Give the first token's vector as the text's, under the name that exporters use."""
    zero = onnx.numpy_helper.from_array(np.array(0, np.int64), "zero_place")
    model.graph.initializer.append(zero)
    node = onnx.helper.make_node(
        "Gather", ["last_hidden_state", "zero_place"], ["sentence_embedding"], axis=1
    )
    model.graph.node.append(node)
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, None)
    )


def test_a_graph_that_pools_by_itself_gives_texts_vectors_and_none_of_tokens(
    ready: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    encoder = Encoder.open(_changed(ready, tmp_path / "model", _pools), tmp_path, "fp32", 2)
    assert not encoder.gives_tokens
    found = encoder.embed(encoder.tokenizer.tokenize(TEXTS))
    assert np.abs(found - expected(made["bert-cls"])).max() < 1e-4


def _other_output(model: Any) -> None:
    model.graph.output[0].name = "elsewhere"
    model.graph.node[-1].output[0] = "elsewhere"


def _other_input(model: Any) -> None:
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, ["n"])
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [(_other_output, "elsewhere, and none of last_hidden_state"), (_other_input, "pixel_values")],
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(
    ready: Path, tmp_path: Path, change: Callable[[Any], None], fault: str
) -> None:
    with pytest.raises(ModelError, match=fault):
        Encoder.open(_changed(ready, tmp_path / "model", change), tmp_path, "fp32", 1)


def _two_graphs(folder: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(_graph(folder), folder / name)
    _graph(folder).unlink()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda m: _graph(m).write_bytes(b"\x00" * 999), "can't be loaded by ONNX Runtime"),
        (_two_graphs, r"several graphs \(a.onnx, b.onnx\)"),
        (lambda m: (m / "tokenizer.json").unlink(), "can't be read"),
        (lambda m: _graph(m).unlink(), "model.safetensors can't be read|config.json can't be read"),
        (lambda m: (m / "tokenizer_config.json").write_text('{"model_max_length": "x"}'), "bad"),
    ],
)
def test_a_damaged_folder_is_refused_with_what_is_wrong(
    ready: Path, tmp_path: Path, damage: Callable[[Path], None], fault: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ready, folder)
    damage(folder)
    with pytest.raises(ModelError, match=fault):
        Encoder.open(folder, tmp_path / "built", "fp32", 1)
