"""A cross-encoder on ONNX Runtime: it reads query and document together and needs no PyTorch.

Source: Nogueira and Cho, "Passage Re-ranking with BERT", 2019, https://arxiv.org/abs/1901.04085.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.rerank.models.pairs import PairModel, relevance_logit, require_classifier
from shared.encoder.built import built_graph
from shared.encoder.pairs import PairTokenizer
from shared.encoder.ready import ModelGraph, ready_graph
from shared.encoder.session import Runner, load_graph
from shared.encoder.tokenizer import Tokenized
from shared.encoder.weights import ModelError
from shared.encoder.window import read_first_position
from shared.settings import Settings

_LOGITS = "logits"


def open_cross_encoder(name: str, folder: Path, settings: Settings) -> PairModel:
    """The cross-encoder in `folder`: by the graph in it, or by one built of its weights.

    Raises ModelError where its files are missing, damaged or of a kind that can't be run here,
    StartupError where a built graph can't be kept.
    """
    tokenizer = PairTokenizer(folder)
    graph = ready_graph(folder)
    if graph is None:
        require_classifier(folder)
        graph = built_graph(folder, settings.built_dir, settings.rerank_precision, "classifier")
    runner = _runner(folder, graph, settings.rerank_threads)
    _require_labels(graph, runner, tokenizer)

    def judge(batch: Sequence[Tokenized]) -> NDArray[np.float32]:
        labels = runner.run(batch, lambda _, outputs: outputs[0])
        return relevance_logit(np.stack(labels))

    return PairModel(
        name,
        folder,
        settings,
        backend="cross-encoder",
        revision=graph.revision,
        precision=graph.precision,
        tokenizer=tokenizer,
        judge=judge,
        release=runner.close,
    )


def _runner(folder: Path, graph: ModelGraph, threads: int) -> Runner:
    session = load_graph(graph)
    names = [output.name for output in session.get_outputs()]
    if _LOGITS not in names:
        raise ModelError(graph.path, f"gives {', '.join(names)} and no {_LOGITS}")
    first = read_first_position(folder)
    return Runner(session, [_LOGITS], threads=threads, first_position=first)


def _require_labels(graph: ModelGraph, runner: Runner, tokenizer: PairTokenizer) -> None:
    """Run the model once; raise ModelError unless it gives each pair one or two labels."""
    pairs = tokenizer.tokenize("a", ["a", "a few words more"]).items
    try:
        shapes = runner.run(pairs, lambda _, outputs: outputs[0].shape)
    except Exception as error:  # the runtime's exceptions have no common base
        raise ModelError(graph.path, f"can't be run on a pair of texts ({error})") from None
    if shapes[0] not in ((1,), (2,)):
        raise ModelError(graph.path, f"gives {list(shapes[0])} logits for a pair, not 1 or 2")
