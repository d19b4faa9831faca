"""The encoder on other runtimes: speed and fidelity of each beside what is shipped.

    python -m tests.bench.runtimes MODEL_FOLDER TEXTS.jsonl [--rounds 7]

Compared are ONNX Runtime (as shipped; with one scale for a batch; with static scales), OpenVINO
(fp32, and int8 by NNCF) and CTranslate2 (int8): what is not installed is left out. `pip install
openvino nncf ctranslate2` brings them; nothing but this script uses them.

Each runs on one thread, in turn in every round, so that whatever else the machine does falls on all
alike; the time given is the median over the rounds, the least beside it. TEXTS.jsonl has a `text`
and perhaps a `title` in each line: a third of the texts sets the scales of those that need to see
some, another gives the fidelity, the cosine to fp32, one text at a time.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from shared.encoder.graph import MICROSOFT, Arithmetic, Float32, Graph, Linear, encoder_graph
from shared.encoder.quantize import Int8, quantise_rows
from shared.encoder.session import Vectors, open_session
from shared.encoder.tokenizer import TextTokenizer
from shared.encoder.weights import open_weights, read_config
from tests.bench.encoder import OneScaleForAll

Ids = NDArray[np.int64]
# Token ids [n, t], none of them padding, to hidden states [n, t, d].
Run = Callable[[Ids], Vectors]

SHAPES = ((1, 8), (1, 23), (1, 128), (2, 128), (8, 32))  # texts, tokens of each
TEXTS = 300


def graph_bytes(folder: Path, arithmetic: Arithmetic) -> bytes:
    """The encoder's graph as the project builds it."""
    with open_weights(folder) as weights:
        graph: bytes = encoder_graph(read_config(folder), weights, arithmetic).SerializeToString()
    return graph


def onnx_runtime(graph: str | bytes) -> Run:
    """ONNX Runtime on one thread."""
    session = open_session(graph)

    def run(ids: Ids) -> Vectors:
        hidden: Vectors = session.run(None, _inputs(ids))[0]
        return hidden

    return run


class Watched(Float32):
    """fp32, with what goes into each product among the graph's outputs."""

    def __init__(self) -> None:
        self.inputs: dict[str, str] = {}

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        self.inputs[layer.name] = x
        return super().project(graph, x, layer)

    def largest(self, folder: Path, samples: list[Ids]) -> dict[str, float]:
        """By product: the largest number that goes into it, whatever its sign."""
        with open_weights(folder) as weights:
            model = encoder_graph(read_config(folder), weights, self)
        for x in dict.fromkeys(self.inputs.values()):
            model.graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, None))
        session = open_session(model.SerializeToString())
        found = dict.fromkeys(self.inputs, 0.0)
        for ids in samples:
            values = session.run([*self.inputs.values()], _inputs(ids))
            for name, into in zip(self.inputs, values, strict=True):
                found[name] = max(found[name], float(np.abs(into).max()))
        return found


@dataclass
class Static(Float32):
    """int8 weights by channel; activations with a scale that was set beforehand.

    largest: by product, the largest activation that is told from a larger one.
    """

    largest: dict[str, float]

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        by_channel, scales = quantise_rows(layer.weight.T)
        step = graph.constant(f"{layer.name}.step", np.float32(self.largest[layer.name] / 127))
        zero = graph.constant("zero_between", np.uint8(128))
        inputs = [
            graph.operator("QuantizeLinear", [x, step, zero]),
            graph.constant(f"{layer.name}.int8", by_channel.T),
            step,
            graph.constant(f"{layer.name}.scale", scales[:, 0]),
            zero,
        ]
        if layer.bias is not None:
            inputs += ["", graph.constant(f"{layer.name}.bias", layer.bias)]
        return graph.operator("MatMulIntegerToFloat", inputs, MICROSOFT)


def openvino(fp32: bytes, samples: list[Ids], scratch: Path) -> Iterator[tuple[str, Run]]:
    """OpenVINO on one thread, as it reads our fp32 graph, and quantised by NNCF."""
    from openvino import Core

    core = Core()
    source = scratch / "openvino.onnx"
    source.write_bytes(fp32)
    model = core.read_model(source)

    def compiled(model: object) -> Run:
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "1"}
        request = core.compile_model(model, "CPU", options).create_infer_request()

        def run(ids: Ids) -> Vectors:
            [hidden] = request.infer(_inputs(ids)).values()
            return np.array(hidden)

        return run

    yield "OpenVINO fp32", compiled(model)
    if importlib.util.find_spec("nncf"):
        import nncf

        shown = nncf.Dataset([_inputs(ids) for ids in samples])
        with contextlib.redirect_stdout(None):
            small = nncf.quantize(model, shown, model_type=nncf.ModelType.TRANSFORMER)
        yield "OpenVINO int8 (NNCF)", compiled(small)


def ctranslate2(folder: Path, scratch: Path) -> Run:
    """CTranslate2 in int8 on one thread; converting needs PyTorch and transformers."""
    from ctranslate2 import Encoder
    from ctranslate2.converters import TransformersConverter

    target = scratch / "ctranslate2"
    TransformersConverter(str(folder)).convert(str(target), quantization="int8")
    encoder = Encoder(str(target), device="cpu", intra_threads=1, compute_type="int8")

    def run(ids: Ids) -> Vectors:
        return np.asarray(encoder.forward_batch(ids.tolist()).last_hidden_state)

    return run


def contenders(folder: Path, samples: list[Ids], scratch: Path) -> Iterator[tuple[str, Run]]:
    """Every way that can be run here, loaded."""
    fp32 = graph_bytes(folder, Float32())
    yield "ONNX Runtime fp32 (shipped)", onnx_runtime(fp32)
    yield (
        "ONNX Runtime int8, a scale per token (shipped)",
        onnx_runtime(graph_bytes(folder, Int8())),
    )
    yield (
        "ONNX Runtime int8, a scale per batch",
        onnx_runtime(graph_bytes(folder, OneScaleForAll())),
    )
    yield (
        "ONNX Runtime int8, static scales",
        onnx_runtime(graph_bytes(folder, Static(Watched().largest(folder, samples)))),
    )
    if importlib.util.find_spec("openvino"):
        yield from openvino(fp32, samples, scratch)
    if importlib.util.find_spec("ctranslate2"):
        yield "CTranslate2 int8", ctranslate2(folder, scratch)


def _inputs(ids: Ids) -> dict[str, Ids]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _vectors(run: Run, texts: list[Ids]) -> Vectors:
    means = np.stack([run(ids)[0].mean(axis=0) for ids in texts])
    unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _texts(path: Path, tokenizer: TextTokenizer) -> list[Ids]:
    """Every n-th text of the file, TEXTS in all; every second one cut to a question's length."""
    lines = path.read_text("utf-8").splitlines()
    read = [json.loads(line) for line in lines[:: max(1, len(lines) // TEXTS)][:TEXTS]]
    whole = tokenizer.tokenize([f"{one.get('title', '')}\n{one['text']}".strip() for one in read])
    short = [
        text.ids[:12] + text.ids[-1:] if place % 2 else text.ids for place, text in enumerate(whole)
    ]
    return [np.array([ids], np.int64) for ids in short]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the model's folder in the model store")
    parser.add_argument("texts", type=Path, help="JSON lines with a `text` each")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    texts = _texts(options.texts, TextTokenizer(options.folder))
    samples, judged = texts[::3], texts[1::3]
    numbers = np.random.default_rng(0)
    shapes = [numbers.integers(1000, 20000, shape) for shape in SHAPES]
    with tempfile.TemporaryDirectory() as scratch:
        ways = dict(contenders(options.folder, samples, Path(scratch)))
        seconds: dict[tuple[str, int], list[float]] = {}
        for number in range(-1, options.rounds):
            for name, run in ways.items():
                for place, ids in enumerate(shapes):
                    run(ids)  # the caches hold another way's weights
                    start = time.perf_counter()
                    run(ids)
                    if number >= 0:
                        spent = time.perf_counter() - start
                        seconds.setdefault((name, place), []).append(spent)
        exact = _vectors(next(iter(ways.values())), judged)
        headings = [f"{count} x {length}" for count, length in SHAPES]
        table = Table("one thread, ms (least)", *headings, "cosine", "least")
        for name, run in ways.items():
            cosines = (_vectors(run, judged) * exact).sum(axis=1)
            times = [seconds[name, place] for place in range(len(shapes))]
            table.add_row(
                name,
                *(f"{statistics.median(t) * 1000:.1f} ({min(t) * 1000:.1f})" for t in times),
                f"{cosines.mean():.4f}",
                f"{cosines.min():.4f}",
            )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
