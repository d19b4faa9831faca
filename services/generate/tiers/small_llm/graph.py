"""The ONNX graph of a Llama model (Touvron et al. 2023, https://arxiv.org/abs/2302.13971).

Inputs: `input_ids` int64 [1, t], the next tokens of a text; `before` int32 [1], the place of the
last of them; `total` int32, its tokens up to there; of each layer the keys and values of the tokens
before, `past_key.N` and `past_value.N`, float32 [1, heads, window, head]. Outputs: `logits` float32
[1, 1, vocabulary], what follows the last token; the keys and values with those of the new tokens,
`key.N` and `value.N`, which are to be bound to the same memory as the inputs.

Matrices are in blocks of 8 bits and multiplied as whole numbers, the other factor put in blocks of
8 bits, too. Attention, its rotary positions and the norms are ONNX Runtime's fused operators.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.generate.tiers.small_llm.checkpoint import BLOCK, Blocks, Checkpoint, Shape
from shared.encoder.graph import MICROSOFT, Graph

_WHOLE_NUMBERS = 4  # MatMulNBits' level of accuracy at which both factors are of 8 bits


def llama_graph(checkpoint: Checkpoint, window: int) -> onnx.ModelProto:
    """The whole graph. window: tokens for which there are positions.

    Raises StartupError where a tensor is missing or misshapen.
    """
    graph, shape = Graph(), checkpoint.shape
    table = checkpoint.blocks(checkpoint.matrix("token_embd.weight", shape.vocabulary, shape.width))
    residual = _lookup(graph, "token_embd", table, shape.width)
    angles = _angles(checkpoint, window)
    cosines = graph.constant("cosines", np.cos(angles).astype(np.float32))
    sines = graph.constant("sines", np.sin(angles).astype(np.float32))
    norm = graph.constant(
        "blk.0.attn_norm", checkpoint.vector("blk.0.attn_norm.weight", shape.width)
    )
    hidden = graph.operator(
        "SimplifiedLayerNormalization", [residual, norm], epsilon=shape.epsilon, axis=-1
    )
    for layer in range(shape.layers):
        name = f"blk.{layer}"
        attended = _attention(graph, layer, hidden, checkpoint, (cosines, sines))
        hidden, residual = _added(graph, f"{name}.ffn_norm", attended, residual, checkpoint)
        forward = _feed_forward(graph, name, hidden, checkpoint)
        last = layer == shape.layers - 1
        after = "output_norm" if last else f"blk.{layer + 1}.attn_norm"
        hidden, residual = _added(graph, after, forward, residual, checkpoint)
    # What follows is asked for the last token alone.
    start, end = (graph.constant(f"{place}", np.array([place], np.int64)) for place in (-1, 2**31))
    hidden = graph.operator(
        "Slice", [hidden, start, end, graph.constant("axis", np.array([1], np.int64))]
    )
    if checkpoint.has("output.weight"):
        words = checkpoint.matrix("output.weight", shape.vocabulary, shape.width)
        logits = _project(graph, "output", hidden, checkpoint.blocks(words))
    else:
        logits = _project(graph, "token_embd", hidden, table)
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    return _model(graph, shape)


def _model(graph: Graph, shape: Shape) -> onnx.ModelProto:
    kept: list[str | int | None] = [1, shape.kv_heads, "window", shape.head]
    tensor = helper.make_tensor_value_info
    inputs = [
        tensor("input_ids", TensorProto.INT64, [1, "t"]),
        tensor("before", TensorProto.INT32, [1]),
        tensor("total", TensorProto.INT32, []),
    ]
    outputs = [tensor("logits", TensorProto.FLOAT, [1, 1, shape.vocabulary])]
    for layer in range(shape.layers):
        for part in ("key", "value"):
            inputs.append(tensor(f"past_{part}.{layer}", TensorProto.FLOAT, kept))
            outputs.append(tensor(f"{part}.{layer}", TensorProto.FLOAT, kept))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "llama", inputs, outputs),
        opset_imports=opsets,
        ir_version=8,
    )
    while graph.constants:  # moved and not copied: they are all there is of the model
        proto.graph.initializer.append(graph.constants.popitem()[1])
    return proto


def _angles(checkpoint: Checkpoint, window: int) -> NDArray[np.float64]:
    """Of the rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864).

    [window, head / 2], in radians.
    """
    shape = checkpoint.shape
    speeds = shape.base ** -(np.arange(0, shape.head, 2) / shape.head)
    if checkpoint.has("rope_freqs.weight"):  # Llama 3.1 slows some of them down
        speeds = speeds / checkpoint.vector("rope_freqs.weight", shape.head // 2)
    return np.outer(np.arange(window), speeds)


def _lookup(graph: Graph, name: str, table: Blocks, width: int) -> str:
    """The rows of a table for the tokens: float32 [1, t, width]."""
    numbers, scales = _constants(graph, name, table)
    rows = graph.operator("Cast", [graph.operator("Gather", [numbers, "input_ids"])], to=1)
    rows = graph.operator("Sub", [rows, graph.constant("zero", np.float32(128))])
    scale = graph.operator("Gather", [scales, "input_ids"])
    scale = graph.operator("Unsqueeze", [scale, graph.constant("last", np.array([-1], np.int64))])
    rows = graph.operator("Mul", [rows, scale])
    return graph.operator(
        "Reshape", [rows, graph.constant("rows", np.array([1, -1, width], np.int64))]
    )


def _constants(graph: Graph, name: str, matrix: Blocks) -> tuple[str, str]:
    numbers = graph.constant(f"{name}.numbers", matrix.numbers)
    return numbers, graph.constant(f"{name}.scales", matrix.scales)


def _project(graph: Graph, name: str, x: str, matrix: Blocks) -> str:
    """x [1, t, columns] times the matrix [rows, columns]: float32 [1, t, rows]."""
    rows, blocks, _ = matrix.numbers.shape
    return graph.operator(
        "MatMulNBits",
        [x, *_constants(graph, name, matrix)],
        MICROSOFT,
        K=blocks * BLOCK,
        N=rows,
        bits=8,
        block_size=BLOCK,
        accuracy_level=_WHOLE_NUMBERS,
    )


def _added(
    graph: Graph, norm: str, x: str, residual: str, checkpoint: Checkpoint
) -> tuple[str, str]:
    """x + residual, once normalised and once as it is."""
    weight = graph.constant(norm, checkpoint.vector(f"{norm}.weight", checkpoint.shape.width))
    normalised, _, _, plain = graph.operators(
        "SkipSimplifiedLayerNormalization",
        [x, residual, weight],
        4,
        MICROSOFT,
        epsilon=checkpoint.shape.epsilon,
    )
    return normalised, plain


def _attention(
    graph: Graph, layer: int, hidden: str, checkpoint: Checkpoint, positions: tuple[str, str]
) -> str:
    """A layer's attention: float32 [1, t, width] to the same."""
    shape, name = checkpoint.shape, f"blk.{layer}"
    # One product for all three, so that the input is put in blocks once.
    together = np.concatenate(
        [
            checkpoint.heads_in_halves(f"{name}.attn_q.weight", shape.heads),
            checkpoint.heads_in_halves(f"{name}.attn_k.weight", shape.kv_heads),
            checkpoint.matrix(f"{name}.attn_v.weight", shape.kv_heads * shape.head, shape.width),
        ]
    )
    packed = _project(graph, f"{name}.attn_qkv", hidden, checkpoint.blocks(together))
    kept = [f"past_key.{layer}", f"past_value.{layer}"]
    attended = f"{name}.attended"
    graph.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            [packed, "", "", *kept, "before", "total", *positions],
            [attended, f"key.{layer}", f"value.{layer}"],
            f"{name}.attention",
            domain=MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
    )
    output = checkpoint.matrix(f"{name}.attn_output.weight", shape.width, shape.heads * shape.head)
    return _project(graph, f"{name}.attn_output", attended, checkpoint.blocks(output))


def _feed_forward(graph: Graph, name: str, hidden: str, checkpoint: Checkpoint) -> str:
    """A layer's feed-forward part, SwiGLU: float32 [1, t, width] to the same."""
    width, inner = checkpoint.shape.width, checkpoint.shape.inner
    gate, up = (
        _project(
            graph,
            f"{name}.{part}",
            hidden,
            checkpoint.blocks(checkpoint.matrix(f"{name}.{part}.weight", inner, width)),
        )
        for part in ("ffn_gate", "ffn_up")
    )
    # x * sigmoid(x), in one operator
    gate = graph.operator("QuickGelu", [gate], MICROSOFT, alpha=1.0)
    down = checkpoint.blocks(checkpoint.matrix(f"{name}.ffn_down.weight", width, inner))
    return _project(graph, f"{name}.ffn_down", graph.operator("Mul", [gate, up]), down)
