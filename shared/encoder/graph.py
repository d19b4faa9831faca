"""The ONNX graphs of a BERT encoder (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) and of a
classifier over one, built from the weights without PyTorch. RoBERTa (Liu et al. 2019,
https://arxiv.org/abs/1907.11692) differs in its first position and in its classifier's head.

An encoder: inputs `input_ids` and `attention_mask`, int64 [n, t]; output `last_hidden_state`,
float32 [n, t, d]. Token types are taken as 0. A classifier takes `token_type_ids` too and gives
`logits`, float32 [n, labels]. Attention and bias + GELU are ONNX Runtime's fused operators;
the residual LayerNorm is left as two operators, because the fused SkipLayerNormalization took three
times as long on a CPU (tests/bench/encoder.py compares the forms).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shared.encoder.weights import BertConfig, Matrix, ModelError, Weights, first_position

MICROSOFT = "com.microsoft"
_TYPES = "embeddings.token_type_embeddings.weight"


class Graph:
    """A graph under construction: nodes in order, and the constants they use."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Keep a constant under its name, once; gives the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def operators(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Append an operator; gives the names of its outputs."""
        number = len(self.nodes)
        names = [f"{kind}_{number}_{place}" for place in range(outputs)]
        node = helper.make_node(
            kind, inputs, names, f"{kind}_{number}", domain=domain, **attributes
        )
        self.nodes.append(node)
        return names

    def operator(
        self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Append an operator with one output; gives its name."""
        return self.operators(kind, inputs, 1, domain, **attributes)[0]


@dataclass(frozen=True)
class Linear:
    """A linear layer: `weight` [i, o], and `bias` [o] if it has one.

    after_gelu: whether its input is the output of a GELU, and so nowhere below -0.17.
    """

    name: str
    weight: Matrix
    bias: Matrix | None = None
    after_gelu: bool = False


class Arithmetic(Protocol):
    """How the graph's two kinds of table are kept and used; decides precision, speed and size."""

    def lookup(self, graph: Graph, name: str, table: Matrix, ids: str) -> str:
        """Rows of `table` [rows, d] for ids [n, t]: float32 [n, t, d]."""
        ...

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """The layer's output for x [n, t, i]: float32 [n, t, o]."""
        ...


class Float32:
    """Arithmetic in the weights' own precision."""

    def lookup(self, graph: Graph, name: str, table: Matrix, ids: str) -> str:
        """See Arithmetic."""
        return graph.operator("Gather", [graph.constant(name, table), ids])

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        weight = graph.constant(f"{layer.name}.weight", layer.weight)
        product = graph.operator("MatMul", [x, weight])
        if layer.bias is None:
            return product
        return graph.operator("Add", [product, graph.constant(f"{layer.name}.bias", layer.bias)])


def encoder_graph(config: BertConfig, weights: Weights, arithmetic: Arithmetic) -> onnx.ModelProto:
    """The whole graph. Raises ModelError where a tensor is missing, misshapen or not finite."""
    graph = Graph()
    hidden = _encoded(graph, config, weights, arithmetic, for_pairs=False)
    graph.nodes.append(helper.make_node("Identity", [hidden], ["last_hidden_state"]))
    return _model(graph, ("input_ids", "attention_mask"), ("n", "t", config.hidden_size))


def classifier_graph(
    config: BertConfig, weights: Weights, arithmetic: Arithmetic
) -> onnx.ModelProto:
    """The whole graph. Raises ModelError as `encoder_graph`, and where no classifier of one or two
    labels was saved with the encoder."""
    graph = Graph()
    hidden = _encoded(graph, config, weights, arithmetic, for_pairs=True)
    bert = config.model_type == "bert"
    pooler = "pooler.dense" if bert else "classifier.dense"
    head = "classifier" if bert else "classifier.out_proj"
    labels = weights.rows(f"{head}.weight")
    if labels > 2:
        raise ModelError(weights.path, f"tells {labels} classes apart, and not how relevant it is")
    # In the weights' own precision whatever the encoder's: it costs nothing for one token.
    for name, rows in ((pooler, config.hidden_size), (head, labels)):
        if name == head:
            hidden = graph.operator("Tanh", [hidden])
        weight = weights.tensor(f"{name}.weight", rows, config.hidden_size).T
        bias = weights.tensor(f"{name}.bias", rows)
        hidden = Float32().project(graph, hidden, Linear(name, weight, bias))
    one = graph.constant("one", np.array([1], np.int64))
    graph.nodes.append(helper.make_node("Squeeze", [hidden, one], ["logits"]))
    return _model(graph, ("input_ids", "attention_mask", "token_type_ids"), ("n", labels))


def _model(graph: Graph, inputs: Sequence[str], shape: Sequence[str | int]) -> onnx.ModelProto:
    """The finished model. shape: of its one output, which the last node gives."""
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs]
    [name] = graph.nodes[-1].output
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    proto = helper.make_graph(
        graph.nodes, "encoder", given, [output], list(graph.constants.values())
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=8)


def _encoded(
    graph: Graph,
    config: BertConfig,
    weights: Weights,
    arithmetic: Arithmetic,
    *,
    for_pairs: bool,
) -> str:
    """The encoder's output: float32 [n, t, d], or [n, 1, d] of the first tokens for pairs, of which
    nothing else is wanted."""
    hidden = _embeddings(graph, config, weights, arithmetic, with_types=for_pairs)
    mask = graph.operator("Cast", ["attention_mask"], to=TensorProto.INT32)
    last = config.num_hidden_layers - 1
    for layer in range(config.num_hidden_layers):
        first_only = for_pairs and layer == last
        name = f"encoder.layer.{layer}"
        hidden = _layer(
            graph, name, hidden, mask, config, weights, arithmetic, first_only=first_only
        )
    return hidden


def _embeddings(
    graph: Graph, config: BertConfig, weights: Weights, arithmetic: Arithmetic, *, with_types: bool
) -> str:
    size = config.hidden_size
    words = weights.tensor("embeddings.word_embeddings.weight", config.vocab_size, size)
    hidden = arithmetic.lookup(graph, "words", words, "input_ids")
    places = weights.tensor(
        "embeddings.position_embeddings.weight", config.max_position_embeddings, size
    )[first_position(config.model_type, config.pad_token_id) :]
    types = weights.tensor(_TYPES, config.type_vocab_size, size)
    table = graph.constant("places", places if with_types else places + types[0])
    start = graph.constant("start", np.array([0], np.int64))
    length = graph.operator("Shape", ["input_ids"], start=1, end=2)
    rows = graph.operator("Slice", [table, start, length, start])
    hidden = graph.operator("Add", [hidden, rows])
    if with_types:
        own = graph.operator("Gather", [graph.constant("types", types), "token_type_ids"])
        hidden = graph.operator("Add", [hidden, own])
    return _normalise(graph, "embeddings.LayerNorm", hidden, config, weights)


def _normalise(graph: Graph, name: str, x: str, config: BertConfig, weights: Weights) -> str:
    scale, shift = (
        graph.constant(f"{name}.{part}", weights.tensor(f"{name}.{part}", config.hidden_size))
        for part in ("weight", "bias")
    )
    return graph.operator(
        "LayerNormalization", [x, scale, shift], axis=-1, epsilon=config.layer_norm_eps
    )


def _layer(
    graph: Graph,
    name: str,
    hidden: str,
    mask: str,
    config: BertConfig,
    weights: Weights,
    arithmetic: Arithmetic,
    *,
    first_only: bool,
) -> str:
    """One layer: float32 [n, t, d] to the same. first_only: to [n, 1, d], of the first tokens,
    which attend to all others but need no further work on them."""
    size, inner = config.hidden_size, config.intermediate_size
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    # One product for all three: the input is read, and in int8 quantised, once.
    packed = np.concatenate([weights.tensor(f"{part}.weight", size, size) for part in parts])
    bias = np.concatenate([weights.tensor(f"{part}.bias", size) for part in parts])
    together = arithmetic.project(graph, hidden, Linear(f"{name}.attention.self", packed.T))
    query, key, value = graph.operators("Split", [together], 3, axis=2)
    attended = graph.operator(
        "MultiHeadAttention",
        [query, key, value, graph.constant(f"{name}.attention.self.bias", bias), mask],
        MICROSOFT,
        num_heads=config.num_attention_heads,
    )
    if first_only:
        attended, hidden = (_first_tokens(graph, x) for x in (attended, hidden))
    output = f"{name}.attention.output"
    narrow = Linear(
        f"{output}.dense",
        weights.tensor(f"{output}.dense.weight", size, size).T,
        weights.tensor(f"{output}.dense.bias", size),
    )
    hidden = graph.operator("Add", [arithmetic.project(graph, attended, narrow), hidden])
    hidden = _normalise(graph, f"{output}.LayerNorm", hidden, config, weights)

    widen = f"{name}.intermediate.dense"
    weight = weights.tensor(f"{widen}.weight", inner, size).T
    wide = arithmetic.project(graph, hidden, Linear(widen, weight))
    bias = weights.tensor(f"{widen}.bias", inner)
    wide = graph.operator("BiasGelu", [wide, graph.constant(f"{widen}.bias", bias)], MICROSOFT)
    output = f"{name}.output"
    narrow = Linear(
        f"{output}.dense",
        weights.tensor(f"{output}.dense.weight", size, inner).T,
        weights.tensor(f"{output}.dense.bias", size),
        after_gelu=True,
    )
    hidden = graph.operator("Add", [arithmetic.project(graph, wide, narrow), hidden])
    return _normalise(graph, f"{output}.LayerNorm", hidden, config, weights)


def _first_tokens(graph: Graph, x: str) -> str:
    """x [n, t, d] cut to [n, 1, d]."""
    start = graph.constant("start", np.array([0], np.int64))
    one = graph.constant("one", np.array([1], np.int64))
    return graph.operator("Slice", [x, start, one, one])
