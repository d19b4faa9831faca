"""The encoder: token ids in, unit vectors out, one for each text, one for each token, or both."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shared.encoder.built import built_graph
from shared.encoder.pooling import read_pooling, require_modules
from shared.encoder.ready import ModelGraph, ready_graph
from shared.encoder.session import Result, Runner, Text, Vectors, load_graph
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.encoder.weights import ModelError
from shared.encoder.window import read_first_position
from shared.settings import Precision

# What exporters call a vector for each token, and one for the text.
_TOKENS = ("last_hidden_state", "token_embeddings")
_SENTENCE = "sentence_embedding"
_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
_PROBE = ("a", "a few words more")


class Encoder:
    """A model that is loaded. Its methods may be called from any thread, until it is closed.

    tokenizer: makes what the methods take. revision: of the vectors: weights, precision and
    pooling. precision: of the arithmetic. nbytes: of the weights. gives_tokens: whether there is a
    vector for each token. dimension: numbers in a vector.
    """

    def __init__(
        self, folder: Path, tokenizer: TextTokenizer, graph: ModelGraph, threads: int
    ) -> None:
        """Load a graph of the model in `folder`. Raises as `open`."""
        self.tokenizer = tokenizer
        session = load_graph(graph)
        names = [output.name for output in session.get_outputs()]
        outputs = [name for name in names if name in _TOKENS][:1]
        self.gives_tokens = bool(outputs)
        # A graph that pools by itself is right whatever it does for it.
        self._pooling = None
        if _SENTENCE not in names:
            require_modules(folder, _MODULES, "choose the backend sentence-transformers")
            self._pooling = read_pooling(folder)
        if _SENTENCE in names:
            outputs.append(_SENTENCE)
        if not outputs:
            wanted = ", ".join((*_TOKENS, _SENTENCE))
            raise ModelError(graph.path, f"gives {', '.join(names)}, and none of {wanted}")
        self._runner = Runner(
            session, outputs, threads=threads, first_position=read_first_position(folder)
        )
        self.revision = graph.revision + ("-cls" if self._pooling == "cls" else "")
        self.precision = graph.precision
        self.nbytes = graph.nbytes
        self.dimension = self._probe(graph)

    @classmethod
    def open(cls, folder: Path, built_dir: Path, precision: Precision, threads: int) -> "Encoder":
        """Load the model in `folder`: the graph in it, or one that is built of its weights.

        A graph is built the first time, in `precision`, into `built_dir`. threads: for one batch.
        Raises ModelError where the model's files are missing, damaged or of a kind that this
        encoder can't run, StartupError where `built_dir` can't be used.
        """
        tokenizer = TextTokenizer(folder)
        graph = ready_graph(folder)
        if graph is None:
            # Before the graph is built, which takes seconds.
            read_pooling(folder)
            require_modules(folder, _MODULES, "choose the backend sentence-transformers")
            graph = built_graph(folder, built_dir, precision)
        return cls(folder, tokenizer, graph, threads)

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """One unit vector a text, float32 [n, d]."""
        vectors = np.empty((len(batch), self.dimension), np.float32)
        for place, vector in enumerate(self._runner.run(batch, self._pooled)):
            vectors[place] = vector
        return _unit(vectors)

    def token_vectors(self, batch: Sequence[Tokenized]) -> list[Vectors]:
        """One unit vector a token, special ones included: float32 [t, d] for each text.

        Only where the model `gives_tokens`.
        """
        return self.digest(batch, lambda _, vectors: vectors)

    def digest(
        self, batch: Sequence[Text], make: Callable[[Text, Vectors], Result]
    ) -> list[Result]:
        """What `make` makes of each text and its token vectors, on the threads of the model."""
        return self._runner.run(
            batch, lambda text, outputs: make(text, _unit(outputs[0][: len(text)]))
        )

    def both(self, batch: Sequence[Tokenized]) -> tuple[Vectors, list[Vectors]]:
        """What `embed` and `token_vectors` give, from one run of the model."""
        found = self._runner.run(
            batch,
            lambda text, outputs: (self._pooled(text, outputs), _unit(outputs[0][: len(text)])),
        )
        vectors = np.empty((len(batch), self.dimension), np.float32)
        for place, (vector, _) in enumerate(found):
            vectors[place] = vector
        return _unit(vectors), [of_tokens for _, of_tokens in found]

    def close(self) -> None:
        """Let go of the model's memory and threads. Nothing can be run any more."""
        self._runner.close()

    def _pooled(self, text: Tokenized, outputs: list[Vectors]) -> Vectors:
        """One text's vector, float32 [d], of what the graph gave for it."""
        if self._pooling is None:
            return outputs[-1]
        if self._pooling == "cls":
            first: Vectors = outputs[0][0]
            return first
        mean: Vectors = outputs[0][: len(text)].mean(axis=0)
        return mean

    def _probe(self, graph: ModelGraph) -> int:
        """The dimension of the vectors, found by running the model once.

        Raises ModelError where it can't be run, or gives what are no vectors.
        """
        texts = self.tokenizer.tokenize(_PROBE)
        try:
            outputs = self._runner.run(texts, lambda _, own: own)
        except Exception as error:  # the runtime's exceptions have no common base
            raise ModelError(graph.path, f"can't be run on a text ({error})") from None
        for text, own in zip(texts, outputs, strict=True):
            tokens = own[0].shape[:-1] if self.gives_tokens else (len(text),)
            sentence = self._pooling is not None or own[-1].ndim == 1
            if len(tokens) != 1 or tokens[0] < len(text) or not sentence:
                shapes = [list(output.shape) for output in own]
                raise ModelError(
                    graph.path, f"gives {shapes} for a text of {len(text)} tokens, not vectors"
                )
        return int(outputs[0][-1].shape[-1])


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
