"""The encoder's arithmetic compared: speed, size and fidelity of each way to multiply.

    python -m tests.bench.encoder MODEL_FOLDER [--threads 2] [--rounds 7]

All ways run in turn in every round, so that whatever else the machine does falls on all alike. The
time given is the median over the rounds; CPU time is that of all threads, and changes less than
the elapsed time when other programs run. Fidelity is the cosine to fp32 over pieces of the handbook
of 3 to 250 tokens, one at a time; sentence-transformers runs too where it is installed.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from shared.encoder.encoder import Encoder
from shared.encoder.graph import MICROSOFT, Arithmetic, Float32, Graph, Linear, encoder_graph
from shared.encoder.quantize import Int8, quantise_rows
from shared.encoder.ready import ModelGraph
from shared.encoder.session import Vectors
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.encoder.weights import open_weights, read_config

HANDBOOK = Path(__file__).resolve().parents[2] / "docs"
LENGTHS = (3, 5, 8, 12, 20, 40, 80, 128, 190, 250)
TEXTS = 100


class OneScaleForAll(Float32):
    """int8 weights by channel; activations with one scale for the whole batch (the runtime's)."""

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        by_channel, scales = quantise_rows(layer.weight.T)
        inputs = [
            x,
            graph.constant(f"{layer.name}.int8", by_channel.T),
            graph.constant(f"{layer.name}.scale", scales[:, 0]),
            "",
        ]
        if layer.bias is not None:
            inputs.append(graph.constant(f"{layer.name}.bias", layer.bias))
        return graph.operator("DynamicQuantizeMatMul", inputs, MICROSOFT)


class Float32AfterGelu(Int8):
    """As shipped, but with the feed-forward down projections in fp32."""

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        return (Float32() if layer.after_gelu else super()).project(graph, x, layer)


class Blocks(Float32):
    """8-bit weights and activations with a scale for every 32 numbers (MatMulNBits)."""

    def project(self, graph: Graph, x: str, layer: Linear) -> str:
        """See Arithmetic."""
        wide, out = layer.weight.shape
        blocks, scales = quantise_rows(np.ascontiguousarray(layer.weight.T).reshape(-1, 32))
        unsigned = (blocks.astype(np.int16) + 128).astype(np.uint8)
        inputs = [
            x,
            graph.constant(f"{layer.name}.blocks", unsigned.reshape(out, wide // 32, 32)),
            graph.constant(f"{layer.name}.scales", scales.reshape(out, wide // 32)),
        ]
        if layer.bias is not None:
            inputs += ["", "", graph.constant(f"{layer.name}.bias", layer.bias)]
        return graph.operator(
            "MatMulNBits",
            inputs,
            MICROSOFT,
            K=wide,
            N=out,
            bits=8,
            block_size=32,
            accuracy_level=4,  # 8-bit sums
        )


ARITHMETIC: dict[str, Arithmetic] = {
    "fp32 (shipped)": Float32(),
    "int8, a scale per token (shipped)": Int8(),
    "int8 per token, down projections fp32": Float32AfterGelu(),
    "int8, a scale per batch": OneScaleForAll(),
    "int8 in blocks of 32": Blocks(),
}


@dataclass
class Contender:
    """One way, loaded: how it embeds, and the seconds measured so far by what was run."""

    embed: Callable[[list[Tokenized]], Vectors]
    megabytes: float
    elapsed: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def run(self, what: str, batch: list[Tokenized], times: int) -> None:
        """Embed the batch so many times and keep the mean time."""
        elapsed, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            self.embed(batch)
        self.elapsed.setdefault(what, []).append((time.perf_counter() - elapsed) / times)
        self.cpu.setdefault(what, []).append((time.process_time() - cpu) / times)


def contenders(
    folder: Path, tokenizer: TextTokenizer, threads: int
) -> Iterator[tuple[str, Contender]]:
    """Every way, loaded."""
    for name, arithmetic in ARITHMETIC.items():
        with open_weights(folder) as weights:
            graph = encoder_graph(read_config(folder), weights, arithmetic).SerializeToString()
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            Path(file.name).write_bytes(graph)
            made = ModelGraph(Path(file.name), name, name, len(graph))
            encoder = Encoder(folder, tokenizer, made, threads)
        yield name, Contender(encoder.embed, len(graph) / 1e6)
    if importlib.util.find_spec("sentence_transformers"):
        yield "sentence-transformers fp32", _torch(folder, threads)


def _torch(folder: Path, threads: int) -> Contender:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def embed(batch: list[Tokenized]) -> Vectors:
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(text.ids) for text in batch], batch_first=True
        )
        with torch.inference_mode():
            answer = model({"input_ids": ids, "attention_mask": (ids != 0).long()})
        vectors: Vectors = answer["sentence_embedding"].numpy()
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    return Contender(embed, (folder / "model.safetensors").stat().st_size / 1e6)


def pieces(tokenizer: TextTokenizer) -> list[Tokenized]:
    """Pieces of the handbook of 3 to 250 tokens."""
    found: list[Tokenized] = []
    for page in sorted(HANDBOOK.glob("**/*.md")):
        for paragraph in page.read_text("utf-8").split("\n## "):
            [whole] = tokenizer.tokenize([paragraph])
            length = LENGTHS[len(found) % len(LENGTHS)]
            if len(whole) >= length and len(found) < TEXTS:
                found.append(Tokenized((*whole.ids[: length - 1], whole.ids[-1]), 0))
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the model's folder in the model store")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    tokenizer = TextTokenizer(options.folder)
    texts = pieces(tokenizer)
    numbers = np.random.default_rng(0)
    query, chunks = (
        [Tokenized(tuple(numbers.integers(1000, 20000, tokens).tolist()), 0) for _ in range(count)]
        for count, tokens in ((1, 10), (32, 128))
    )
    ways = dict(contenders(options.folder, tokenizer, options.threads))
    for number in range(-1, options.rounds):
        for contender in ways.values():
            contender.run("query", query, 30)
            contender.run("chunks", chunks, 1)
            if number < 0:  # the first run of each loads and lays out its weights
                contender.elapsed.clear()
                contender.cpu.clear()

    table = Table(
        "way", "MB", "query ms", "CPU", "128 tokens: texts/s", "per CPU s", "cosine", "least"
    )
    exact = _alone(ways["fp32 (shipped)"], texts)
    for name, contender in ways.items():
        elapsed = {what: statistics.median(times) for what, times in contender.elapsed.items()}
        cpu = {what: statistics.median(times) for what, times in contender.cpu.items()}
        cosines = (_alone(contender, texts) * exact).sum(axis=1)
        table.add_row(
            name,
            f"{contender.megabytes:.0f}",
            f"{elapsed['query'] * 1000:.2f}",
            f"{cpu['query'] * 1000:.2f}",
            f"{len(chunks) / elapsed['chunks']:.1f}",
            f"{len(chunks) / cpu['chunks']:.1f}",
            f"{cosines.mean():.5f}",
            f"{cosines.min():.5f}",
        )
    Console(width=130).print(table)


def _alone(contender: Contender, texts: list[Tokenized]) -> Vectors:
    return np.concatenate([contender.embed([text]) for text in texts])


if __name__ == "__main__":
    main()
