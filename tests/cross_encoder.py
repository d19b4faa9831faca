"""A real, small cross-encoder, made in seconds: a BERT of two layers and 64 dimensions.

Training one needs more time than a test has, so its body is written down, and only its head is
trained. The words' vectors are MiniLM's, projected. In the first layer each token looks for its
like in the other text; in the second the classifier's token takes the mean of what the query's
tokens found, rare ones before frequent ones. The head is a logistic regression on judged pairs.
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from services.rerank.models.cross_encoder import open_cross_encoder
from shared.settings import Settings

SIZE = 64
WORD = 56  # dimensions of a token's own vector; the others carry flags
SIDE, FOUND, FIRST, MATCH, RARE = 56, 57, 58, 60, 61
CLS, SEP = 101, 102
_SHARPNESS = 2.9  # cosine 1 gives a logit of 20
_OTHER_SIDE = 28.0  # so much does a token prefer the other text's tokens
_SINK = 69.0  # where it looks if nothing there has a cosine of 0.5

Matrix = NDArray[np.float32]
Judged = Sequence[tuple[str, str, bool]]  # query, document, whether it is relevant


def _words(minilm: Path) -> Matrix:
    """A vector for each token, float32 [tokens, SIZE]."""
    table = load_file(minilm / "model.safetensors")["embeddings.word_embeddings.weight"]
    table = table - table[1000:].mean(axis=0)
    _, _, axes = np.linalg.svd(table[1000::7], full_matrices=False)
    own = table @ axes[:WORD].T
    # The tokens around the texts are like no word.
    own[[CLS, SEP]] = np.random.default_rng(0).normal(size=(2, WORD))
    words = np.zeros((len(table), SIZE), np.float32)
    words[:, :WORD] = own * np.sqrt(WORD) / (np.linalg.norm(own, axis=1, keepdims=True) + 1e-6)
    # The vocabulary is in order of frequency, after its signs.
    words[:, RARE] = np.clip(np.log(np.maximum(np.arange(len(table)) - 1990, 1)) / 5, 0, 2)
    words[[CLS, SEP], RARE] = -2
    words[CLS, FIRST] = 3
    return words


def _body(minilm: Path) -> dict[str, Matrix]:
    tensors = {
        "embeddings.word_embeddings.weight": _words(minilm),
        "embeddings.position_embeddings.weight": np.zeros((512, SIZE), np.float32),
        "embeddings.token_type_embeddings.weight": np.zeros((2, SIZE), np.float32),
    }
    tensors["embeddings.token_type_embeddings.weight"][:, SIDE] = (1.5, -1.5)
    norms = ["embeddings.LayerNorm"]
    for layer in (0, 1):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, rows, columns in (
            ("attention.self.query", SIZE, SIZE),
            ("attention.self.key", SIZE, SIZE),
            ("attention.self.value", SIZE, SIZE),
            ("attention.output.dense", SIZE, SIZE),
            ("intermediate.dense", SIZE, SIZE),
            ("output.dense", SIZE, SIZE),
        ):
            tensors[f"{name}.{part}.weight"] = np.zeros((rows, columns), np.float32)
            tensors[f"{name}.{part}.bias"] = np.zeros(rows, np.float32)
    for norm in norms:
        tensors[f"{norm}.weight"] = np.ones(SIZE, np.float32)
        tensors[f"{norm}.bias"] = np.zeros(SIZE, np.float32)

    look = "encoder.layer.0.attention"
    own = np.arange(WORD)
    tensors[f"{look}.self.query.weight"][own, own] = _SHARPNESS
    tensors[f"{look}.self.query.weight"][SIDE, SIDE] = -_OTHER_SIDE
    tensors[f"{look}.self.query.bias"][FIRST] = _SINK
    for place in (*own, SIDE, FIRST):
        tensors[f"{look}.self.key.weight"][place, place] = 1
    tensors[f"{look}.self.value.weight"][FOUND, SIDE] = -1 / 3
    tensors[f"{look}.self.value.bias"][FOUND] = 0.5
    tensors[f"{look}.output.dense.weight"][FOUND, FOUND] = 6

    gather = "encoder.layer.1.attention"
    tensors[f"{gather}.self.query.weight"][SIDE, FIRST] = 14
    tensors[f"{gather}.self.query.weight"][RARE, FIRST] = 3.3
    for place in (SIDE, RARE):
        tensors[f"{gather}.self.key.weight"][place, place] = 1
    tensors[f"{gather}.self.value.weight"][MATCH, FOUND] = 1
    tensors[f"{gather}.output.dense.weight"][MATCH, MATCH] = 4
    return {f"bert.{name}": tensor for name, tensor in tensors.items()}


def _write(folder: Path, minilm: Path, slope: float, intercept: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _body(minilm)
    tensors["bert.pooler.dense.weight"] = np.zeros((SIZE, SIZE), np.float32)
    tensors["bert.pooler.dense.weight"][0, MATCH] = 0.1
    tensors["bert.pooler.dense.bias"] = np.zeros(SIZE, np.float32)
    tensors["classifier.weight"] = np.zeros((1, SIZE), np.float32)
    tensors["classifier.weight"][0, 0] = slope
    tensors["classifier.bias"] = np.array([intercept], np.float32)
    (folder / "model.safetensors").unlink(missing_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": SIZE,
        "intermediate_size": SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "vocab_size": len(tensors["bert.embeddings.word_embeddings.weight"]),
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 512})
    )


def logits(folder: Path, built_dir: Path, judged: Judged) -> Matrix:
    """The model's own logit of each pair, float32 [n], in fp32 on ONNX Runtime."""
    settings = Settings(data_dir=built_dir, rerank_precision="fp32")

    async def run() -> Matrix:
        model = open_cross_encoder("small", folder, settings)
        found = []
        try:
            for query, document, _ in judged:
                found += (await model.score(query, [document], max_tokens=128)).raw_scores
        finally:
            await model.close()
        return np.array(found, np.float32)

    return asyncio.run(run())


def make_cross_encoder(folder: Path, minilm: Path, judged: Judged) -> None:
    """Write the model to `folder`, its head fitted to the judgements."""
    _write(folder, minilm, 1, 0)
    x = logits(folder, folder.with_name(f"{folder.name}-data"), judged).astype(np.float64)
    y = np.array([relevant for _, _, relevant in judged], np.float64)
    # Newton's method, on what the pooler gives, with a little ridge.
    weights = np.zeros(2)
    inputs = np.stack([(x - x.mean()) / x.std(), np.ones_like(x)], axis=1)
    for _ in range(30):
        p = 1 / (1 + np.exp(-inputs @ weights))
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + 0.1 * np.eye(2)
        weights -= np.linalg.solve(hessian, inputs.T @ (p - y) + 0.1 * weights)
    slope = float(weights[0] / x.std())
    _write(folder, minilm, slope, float(weights[1] - slope * x.mean()))


def auc(scores: Matrix, judged: Judged) -> float:
    """How often a relevant document scores above an irrelevant one; chance is 0.5."""
    relevant = np.array([relevant for _, _, relevant in judged])
    above = scores[relevant][:, None] > scores[~relevant][None, :]
    same = scores[relevant][:, None] == scores[~relevant][None, :]
    return float((above + same / 2).mean())


def from_collection(folder: Path, queries: int) -> list[tuple[str, str, bool]]:
    """The first judged queries of a collection's train split, each with a document that answers it
    and with one that answers the next query."""
    lines = (folder / "corpus.jsonl").read_text("utf-8").splitlines()
    documents = {one["_id"]: f"{one['title']}. {one['text']}" for one in map(json.loads, lines)}
    lines = (folder / "queries_train.jsonl").read_text("utf-8").splitlines()
    texts = {one["_id"]: one["text"] for one in map(json.loads, lines)}
    judgements = (folder / "qrels_train.tsv").read_text("utf-8").splitlines()[1:]
    first = {line.split("\t")[0]: line.split("\t")[1] for line in reversed(judgements)}
    return _with_another([(texts[q], documents[d]) for q, d in list(first.items())[:queries]])


def from_handbook(docs: Path, pages: int) -> list[tuple[str, str, bool]]:
    """The titles of pages, each with its own page's first words and with the next page's."""
    found = []
    for page in sorted(docs.glob("**/*.md"))[:pages]:
        title, _, text = page.read_text("utf-8").partition("\n")
        found.append((title.lstrip("# "), text.strip()[:600]))
    return _with_another(found)


def _with_another(relevant: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    judged = []
    for place, (query, document) in enumerate(relevant):
        other = relevant[(place + 1) % len(relevant)][1]
        judged += [(query, document, True), (query, other, False)]
    return judged
