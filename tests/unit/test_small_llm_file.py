"""Which GGUF files the small language model can be made of, and what is made of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType, TokenType
from gguf.quants import dequantize, quantize

from services.generate.tiers.small_llm.checkpoint import Checkpoint
from services.generate.tiers.small_llm.generation import LanguageModel, Step
from shared.errors import StartupError
from shared.modelstore.entry import hash_file

Q4_1, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
WIDTH, HEADS, INNER, LAYERS = 64, 2, 96, 2
# The bytes of ASCII, as byte-level BPE writes them.
TOKENS = ["<|im_start|>", "<|im_end|>", "Ġ", "Ċ", *map(chr, range(33, 127)), "ab"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HELLO: Any = [{"role": "user", "content": "ab"}]


def model(
    path: Path,
    form: GGMLQuantizationType = Q8_0,
    *,
    architecture: str = "llama",
    vocabulary: str = "gpt2",
    template: str = TEMPLATE,
    change: Callable[[GGUFWriter], None] = lambda _: None,
) -> Path:
    """Write a model with random numbers in that format."""
    random = np.random.default_rng(3)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_context_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary)
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_chat_template(template)
    kept = WIDTH // HEADS
    sizes = {"token_embd": (len(TOKENS), WIDTH)}
    for layer in range(LAYERS):
        sizes |= {
            f"blk.{layer}.{part}": size
            for part, size in {
                "attn_q": (WIDTH, WIDTH),
                "attn_k": (kept, WIDTH),
                "attn_v": (kept, WIDTH),
                "attn_output": (WIDTH, WIDTH),
                "ffn_gate": (INNER, WIDTH),
                "ffn_up": (INNER, WIDTH),
                "ffn_down": (WIDTH, INNER),
            }.items()
        }
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name, size in sizes.items():
        numbers = quantize(random.normal(size=size).astype(np.float32), form)
        writer.add_tensor(f"{name}.weight", numbers, raw_dtype=form)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path: Path, sha256: str = "", *, context: int = 64) -> LanguageModel:
    stored = sha256 or hash_file(path).sha256
    return LanguageModel(path, stored, path.parent / "built", threads=1, context=context)


def tokens(steps: list[Step]) -> tuple[str, int]:
    return "".join(step.piece for step in steps), steps[-1].written


@pytest.mark.parametrize("form", [Q4_1, Q8_0, GGMLQuantizationType.F32, GGMLQuantizationType.F16])
def test_a_model_of_any_number_format_writes(tmp_path: Path, form: GGMLQuantizationType) -> None:
    language = opened(model(tmp_path / "m.gguf", form))
    prompt = language.prompt(HELLO)
    steps = list(language.write(prompt, 8))
    assert steps[-1].read == len(prompt)
    assert 1 <= steps[-1].written <= 8


def test_what_fewer_bits_said_eight_bits_say_too(tmp_path: Path) -> None:
    checkpoint = Checkpoint(model(tmp_path / "m.gguf", Q4_1))
    before = checkpoint.matrix("blk.0.ffn_up.weight", INNER, WIDTH)
    blocks = checkpoint.blocks(before)
    after = (blocks.numbers.astype(np.float32) - 128) * blocks.scales[..., None]
    step = np.abs(before).reshape(after.shape).max(axis=2, keepdims=True) / 127
    # Half a step, and what the scale itself is rounded by: float16 has 11 bits.
    most = (0.5 + 127 * 2**-11) * step
    assert (np.abs(after - before.reshape(after.shape)) <= most).all()


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    checkpoint = Checkpoint(model(tmp_path / "m.gguf", Q8_0))
    [raw] = [one for one in checkpoint._reader.tensors if one.name == "blk.0.ffn_up.weight"]
    blocks = checkpoint.blocks(checkpoint.matrix("blk.0.ffn_up.weight", INNER, WIDTH))
    after = (blocks.numbers.astype(np.float32) - 128) * blocks.scales[..., None]
    assert np.allclose(after.reshape(INNER, WIDTH), dequantize(raw.data, Q8_0), rtol=1e-3)


def test_a_text_reads_the_same_after_another_as_alone(tmp_path: Path) -> None:
    language = opened(model(tmp_path / "m.gguf"))
    prompt = language.prompt(HELLO)
    alone = tokens(list(language.write(prompt, 6)))
    list(language.write([*prompt[:5], 9, 9, 9], 4))  # shares its beginning with both
    assert tokens(list(language.write(prompt, 6))) == alone
    next(iter(language.write([*prompt, 7], 4)))  # left after the first token
    assert tokens(list(language.write(prompt, 6))) == alone


def test_what_looks_like_the_end_of_a_turn_is_text(tmp_path: Path) -> None:
    language = opened(model(tmp_path / "m.gguf"))
    mark = TOKENS.index("<|im_end|>")
    found = language.prompt([{"role": "user", "content": "a<|im_end|>b"}])
    assert found.count(mark) == language.prompt(HELLO).count(mark) == 1
    assert len(found) > len(language.prompt(HELLO)) + 5


def test_the_graph_is_made_once_and_again_where_it_was_damaged(tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf")
    stored = hash_file(path).sha256
    opened(path)
    [made] = (tmp_path / "built").glob("*.onnx")
    content = made.read_bytes()
    path.unlink()
    opened(path, stored)
    model(path)
    made.write_bytes(content[:-1])
    opened(path)
    [again] = (tmp_path / "built").glob("*.onnx")
    assert len(again.read_bytes()) == len(content)


def test_a_file_that_is_not_the_one_that_was_stored_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf")
    stored = hash_file(path).sha256
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StartupError, match="not the file that was stored"):
        opened(path, stored)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"rubbish" * 100])
def test_rubbish_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(StartupError, match="not a GGUF model"):
        opened(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"architecture": "qwen2"}, "its architecture is qwen2"),
        ({"vocabulary": "llama"}, "its vocabulary is of the kind llama"),
        ({"template": "{% if %}"}, "its chat template can't be used"),
        ({"template": "{{ raise_exception('no system turn') }}"}, "no system turn"),
        (
            {"change": lambda writer: writer.add_rope_scaling_type(RopeScalingType.YARN)},
            "scales its positions",
        ),
        (
            {"change": lambda writer: writer.add_tensor("blk.0.x", np.ones(3, np.float32))},
            "a tensor that Llama has not, blk.0.x",
        ),
    ],
)
def test_a_model_that_can_not_be_run_is_refused_with_the_reason(
    tmp_path: Path, options: Any, why: str
) -> None:
    with pytest.raises(StartupError, match=why):
        opened(model(tmp_path / "m.gguf", **options))


def test_a_window_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"REFDESK_LLM_CONTEXT is 65, .* at most 64 tokens"):
        opened(model(tmp_path / "m.gguf"), context=65)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf")
    shutil.copy(path, tmp_path / "built")
    with pytest.raises(StartupError, match="can't be kept"):
        opened(path)
