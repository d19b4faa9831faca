"""A language model's GGUF file: what of it can be run here, and its parts.

GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) holds tensors in many number
formats, the vocabulary, and the chat template. Models of the Llama architecture with a byte-level
BPE vocabulary can be run; anything else is refused, in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from shared.errors import StartupError

BLOCK = 32  # numbers that share a scale
_EIGHT = GGMLQuantizationType.Q8_0  # of each block: its scale in float16, and its numbers in int8

# The tensors that a Llama model may have, outside its layers and in each.
_OUTSIDE = {"token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"}
_PARTS = (
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama model.

    width: numbers per token, between the layers. head: numbers per token in each head. inner:
    the same in the feed-forward part. window: tokens that it was trained for. epsilon: of the
    norms. base: of the rotary positions.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    window: int
    epsilon: float
    base: float


@dataclass(frozen=True)
class Blocks:
    """A matrix [rows, columns] in 8 bits.

    numbers: uint8 [rows, columns / 32, 32], 128 for zero. scales: float32 [rows, columns / 32].
    """

    numbers: NDArray[np.uint8]
    scales: NDArray[np.float32]


class Checkpoint:
    """An open GGUF file. Raises StartupError where it is none, or can't be run here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._reader = GGUFReader(path)
            kind = self.field("general.architecture")
        except (ValueError, KeyError, IndexError):
            raise StartupError(
                f"{path} is damaged or not a GGUF model; check it with `refdesk models verify`"
            ) from None
        if kind != "llama":
            raise self.refusal(f"its architecture is {kind}, and llama is the one that is known")
        if self.field("llama.rope.scaling.type", "none") != "none":
            raise self.refusal("it scales its positions in a way that is not known")
        self._tensors = {one.name: one for one in self._reader.tensors}
        heads = int(self.field("llama.attention.head_count"))
        width = int(self.field("llama.embedding_length"))
        self.shape = Shape(
            layers=int(self.field("llama.block_count")),
            width=width,
            heads=heads,
            kv_heads=int(self.field("llama.attention.head_count_kv", heads)),
            head=int(self.field("llama.attention.key_length", width // heads)),
            inner=int(self.field("llama.feed_forward_length")),
            vocabulary=len(self.field("tokenizer.ggml.tokens")),
            window=int(self.field("llama.context_length")),
            epsilon=float(self.field("llama.attention.layer_norm_rms_epsilon")),
            base=float(self.field("llama.rope.freq_base", 10000.0)),
        )
        unknown = self._tensors.keys() - self._known()
        if unknown:
            raise self.refusal(f"it has a tensor that Llama has not, {min(unknown)}")

    def refusal(self, why: str) -> StartupError:
        """The error for a file that is whole and can't be run."""
        return StartupError(
            f"{self._path} can't be run here: {why}; set REFDESK_LLM_MODEL to a model of the Llama "
            "architecture with a byte-level BPE vocabulary, or run this one by a model server"
        )

    def field(self, name: str, default: Any = None) -> Any:
        """A value of the file's header. Raises StartupError where it and a default are missing."""
        found = self._reader.fields.get(name)
        if found is not None:
            return found.contents()
        if default is None:
            raise self.refusal(f"its header lacks {name}")
        return default

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._tensors

    def vector(self, name: str, size: int) -> NDArray[np.float32]:
        """A tensor of that name: float32 [size]."""
        return self._numbers(name, (size,))

    def matrix(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """A tensor of that name: float32 [rows, columns]."""
        return self._numbers(name, (rows, columns))

    def heads_in_halves(self, name: str, heads: int) -> NDArray[np.float32]:
        """The matrix of queries or keys with each head's rotary pairs half a head apart.

        GGUF has the two numbers of a pair side by side.
        """
        head, width = self.shape.head, self.shape.width
        pairs = self.matrix(name, heads * head, width).reshape(heads, head // 2, 2, width)
        return pairs.swapaxes(1, 2).reshape(heads * head, width)

    def blocks(self, matrix: NDArray[np.float32]) -> Blocks:
        """The matrix in 8 bits, as GGUF's format Q8_0 has it: one in that format stays as it is."""
        rows, columns = matrix.shape
        if columns % BLOCK:
            raise self.refusal(f"a matrix has {columns} columns, and not a multiple of {BLOCK}")
        raw = quantize(matrix, _EIGHT).reshape(rows, columns // BLOCK, BLOCK + 2)
        scales = raw[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
        # Adding 128 to a signed byte turns its first bit.
        return Blocks(raw[..., 2:] ^ np.uint8(128), scales)

    def _numbers(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        if name not in self._tensors:
            raise self.refusal(f"it lacks the tensor {name}")
        tensor = self._tensors[name]
        found = tuple(int(size) for size in reversed(tensor.shape))
        if found != tuple(shape):
            raise self.refusal(f"{name} is of shape {found}, and not {tuple(shape)}")
        try:
            numbers = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise self.refusal(f"the numbers of {name} are of the format {kind}") from None
        return numbers.astype(np.float32, copy=False).reshape(shape)

    def _known(self) -> set[str]:
        layers = range(self.shape.layers)
        return _OUTSIDE | {f"blk.{layer}.{part}.weight" for layer in layers for part in _PARTS}
