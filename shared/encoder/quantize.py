"""Dynamic int8 arithmetic for the encoder's graph.

Weights are int8 with a scale per output channel. Activations are quantised while the model runs,
with a scale per *token*: ONNX Runtime's own dynamic quantisation takes one scale for the whole
batch, which costs fidelity and makes a text's vector depend on its neighbours in the batch. The
word table is int8 with a scale per word.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from shared.encoder.graph import MICROSOFT, Graph, Linear
from shared.encoder.weights import Matrix

_LEVELS = 127
# GELU never falls below -0.16998: lifted by this, its output uses all 8 bits without a sign, and
# most of it is near 0, where the int16 sums of CPUs without VNNI can't overflow.
_GELU_LIFT = np.float32(0.17)


class Int8:
    """Arithmetic in 8 bits: int8 weights, uint8 activations, int32 sums."""

    def lookup(self, graph: Graph, name: str, table: Matrix, ids: str) -> str:
        """See Arithmetic."""
        quantised, scales = quantise_rows(table)
        rows = graph.operator("Gather", [graph.constant(f"{name}.int8", quantised), ids])
        scale = graph.operator("Gather", [graph.constant(f"{name}.scale", scales), ids])
        numbers = graph.operator("Cast", [rows], to=TensorProto.FLOAT)
        return graph.operator("Mul", [numbers, scale])

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        by_channel, scales = quantise_rows(layer.weight.T)
        bias = layer.bias
        if layer.after_gelu:
            x = graph.operator("Add", [x, graph.constant("gelu_lift", _GELU_LIFT)])
            size = x
            step = graph.constant("step_above_zero", np.float32(1 / 255))
            zero = graph.constant("zero_below", np.uint8(0))
            # What the lift adds to every product is known beforehand: it is taken off again here.
            lifted = _GELU_LIFT * (by_channel * scales).sum(axis=1)
            bias = (0 if bias is None else bias) - lifted
        else:
            size = graph.operator("Abs", [x])
            step = graph.constant("step_around_zero", np.float32(1 / _LEVELS))
            zero = graph.constant("zero_between", np.uint8(128))
        largest = graph.operator("ReduceMax", [size], axes=[-1], keepdims=1)
        quantised = graph.operator(
            "QuantizeLinear", [graph.operator("Div", [x, largest]), step, zero]
        )
        weight = graph.constant(f"{layer.name}.int8", by_channel.T)
        scale = graph.constant(f"{layer.name}.scale", scales[:, 0])
        product = graph.operator(
            "MatMulIntegerToFloat", [quantised, weight, step, scale, zero], MICROSOFT
        )
        product = graph.operator("Mul", [product, largest])
        if bias is None:
            return product
        return graph.operator("Add", [product, graph.constant(f"{layer.name}.bias", bias)])


def quantise_rows(table: Matrix) -> tuple[NDArray[np.int8], Matrix]:
    """Symmetric int8 of each row: (int8 [rows, d], float32 scale [rows, 1])."""
    scales = np.abs(table).max(axis=1, keepdims=True) / np.float32(_LEVELS)
    scales[scales == 0] = 1
    return np.rint(table / scales).astype(np.int8), scales
