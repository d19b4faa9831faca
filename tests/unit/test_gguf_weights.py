"""The small model's weights are made quicker to read, and stay the same model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from services.generate.tiers.gguf_weights import fastest_weights
from shared.errors import StartupError

Q4_1, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
SHA = "ab" * 32


def model(path: Path, form: GGMLQuantizationType) -> np.ndarray:
    """Write a file with one matrix in that form; its numbers as they are read from it."""
    numbers = quantize(np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32), form)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_token_list(["a", "b"])
    writer.add_file_type(3)
    writer.add_tensor("m", numbers, raw_dtype=form)
    writer.add_tensor("norm", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return np.asarray(dequantize(numbers, form))


def test_what_four_bits_said_eight_bits_say_too(tmp_path: Path) -> None:
    before = model(tmp_path / "m.gguf", Q4_1)
    path = fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built")
    reader = GGUFReader(path)
    after = {one.name: one for one in reader.tensors}
    assert (after["m"].tensor_type, after["norm"].tensor_type) == (Q8_0, 0)
    step = np.abs(before).reshape(8, 2, 32).max(axis=2).repeat(32, axis=1) / 127
    assert (np.abs(dequantize(after["m"].data, Q8_0) - before) <= 0.51 * step).all()
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert reader.fields["llama.block_count"].contents() == 2


def test_it_is_made_once_and_again_where_it_was_damaged(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf", Q4_1)
    path = fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built")
    content = path.read_bytes()
    (tmp_path / "m.gguf").unlink()
    assert fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built") == path
    model(tmp_path / "m.gguf", Q4_1)
    path.write_bytes(content[:-1])
    assert fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built").read_bytes() == content


def test_a_model_that_is_read_fast_is_loaded_as_it_is(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf", Q8_0)
    path = fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built")
    assert path == tmp_path / "m.gguf"
    assert [one.name for one in (tmp_path / "built").iterdir()] == [".lock"]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"rubbish" * 100])
def test_rubbish_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(StartupError, match="not a GGUF model"):
        fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "built")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf", Q4_1)
    shutil.copy(tmp_path / "m.gguf", tmp_path / "file")
    with pytest.raises(StartupError, match="can't be kept"):
        fastest_weights(tmp_path / "m.gguf", SHA, tmp_path / "file")
