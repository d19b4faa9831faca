"""embed over a model that answers no numbers for some words: told to who asked, never kept."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from services.embed.app import build
from shared.modelstore.folder import FolderSource
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.suite import serving

WORDS = {"cat": np.inf, "dog": 0.0, "tax": np.nan}


@pytest.fixture(scope="module")
def models(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a graph that looks its vectors up, some of which are none."""
    folder = tmp_path_factory.mktemp("unsound")
    source = folder / "overflowing"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(minilm_dir / name, source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    table = np.random.default_rng(0).random((tokenizer.get_vocab_size(), 8), np.float32)
    for word, number in WORDS.items():
        table[tokenizer.token_to_id(word)] = number
    for special in ("[CLS]", "[SEP]"):
        table[tokenizer.token_to_id(special)] = 0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "lookup",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, source / "model.onnx")
    ModelStore(folder / "store").pull(FolderSource(source, "overflowing"))
    return folder / "store"


@pytest.fixture
async def client(models: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        models_dir=models,
        data_dir=tmp_path,
        embed_model="overflowing",
        embed_cache_dir=tmp_path / "kept",
    )
    app = await build(settings)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as made:
        yield made


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("outputs", [["dense"], ["dense", "tokens"]])
async def test_a_vector_that_is_none_is_refused_each_time(
    client: httpx.AsyncClient, word: str, outputs: list[str]
) -> None:
    for _ in range(2):  # the second time it would come from the cache
        body = {"input": ["a mouse", word], "outputs": outputs}
        answer = await client.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "bad_model")
    sound = await client.post("/v1/embeddings", json={"input": "a mouse", "outputs": outputs})
    assert sound.status_code == 200
