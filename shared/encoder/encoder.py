"""The encoder: token ids in, unit vectors out, one for each text or one for each token."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.encoder.built import built_graph
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.encoder.weights import ModelError, read_json
from shared.errors import StartupError
from shared.settings import Precision

Vectors = NDArray[np.float32]

# Padded tokens in one run of the graph, at most, where it holds several texts. It bounds what the
# runtime's arena can grow to; larger runs are not faster.
_RUN_TOKENS = 256
# Padding a text by fewer tokens than this takes less time than another run.
_PADDING = 32


def open_session(graph: str | bytes) -> onnxruntime.InferenceSession:
    """A session on one thread of the CPU for a graph, given as a path or as its bytes."""
    options = onnxruntime.SessionOptions()
    # Runs go side by side instead (Encoder): the runtime's own threads wait for each other at
    # every operator, which takes a quarter more CPU time, and twice as much while they spin.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors are raised; what is below them is the optimiser's talk
    # It would keep a plan for every shape that was ever seen.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Encoder:
    """A model that is loaded. Its methods may be called from any thread.

    tokenizer: makes what the methods take. revision: of the vectors: weights and precision.
    dimension: numbers in a vector. threads: how many runs of the graph may go side by side.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: TextTokenizer,
        revision: str,
        threads: int,
    ) -> None:
        self._session = session
        self._threads = threads
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        self.tokenizer = tokenizer
        self.revision = revision
        self.dimension: int = session.get_outputs()[0].shape[-1]

    @classmethod
    def open(cls, folder: Path, built_dir: Path, precision: Precision, threads: int) -> "Encoder":
        """Load the model in `folder`; the first time, build its graph into `built_dir`.

        threads: for one batch. Raises ModelError where the model's files are missing, damaged
        or of a kind that this encoder can't run, StartupError where `built_dir` can't be used.
        """
        _require_mean_pooling(folder)
        tokenizer = TextTokenizer(folder)
        built = built_graph(folder, built_dir, precision)
        try:
            session = open_session(str(built.path))
        except Exception as error:  # the runtime's exceptions have no common base
            raise StartupError(
                f"ONNX Runtime can't load the graph {built.path}: {error}; remove the file, and it "
                "is built again"
            ) from None
        return cls(session, tokenizer, built.revision, threads)

    def embed(self, batch: Sequence[Tokenized]) -> Vectors:
        """One vector a text: the mean of its token vectors, at length 1. float32 [n, d]."""
        vectors = np.empty((len(batch), self.dimension), np.float32)
        for place, tokens in self._run(batch):
            vectors[place] = tokens.mean(axis=0)
        return _unit(vectors)

    def token_vectors(self, batch: Sequence[Tokenized]) -> list[Vectors]:
        """One vector a token, special ones included, at length 1: float32 [t, d] for each text."""
        vectors: list[Vectors] = [np.empty(0, np.float32)] * len(batch)
        for place, tokens in self._run(batch):
            vectors[place] = _unit(tokens)
        return vectors

    def _run(self, batch: Sequence[Tokenized]) -> Iterator[tuple[int, Vectors]]:
        """Each text's place in the batch and its token vectors, float32 [t, d]."""
        groups = _groups(batch, self._threads)
        hidden: Iterable[Vectors]
        if len(groups) == 1:  # a query: not worth waking another thread for
            hidden = [self._hidden([batch[place] for place in groups[0]])]
        else:
            texts = [[batch[place] for place in group] for group in groups]
            hidden = self._workers.map(self._hidden, texts)
        for group, vectors in zip(groups, hidden, strict=True):
            for row, place in enumerate(group):
                yield place, vectors[row, : len(batch[place])]

    def _hidden(self, texts: Sequence[Tokenized]) -> Vectors:
        """The graph's output for texts of like lengths, float32 [n, t, d]."""
        longest = max(map(len, texts))
        ids = np.zeros((len(texts), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text.ids
            mask[row, : len(text)] = 1
        hidden: Vectors
        [hidden] = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return hidden


def _groups(batch: Sequence[Tokenized], threads: int) -> list[list[int]]:
    """The places of a batch in groups to run together, each of like lengths, longest first.

    Longest first, so that the runs that go side by side end at about the same time.
    """
    share = -(-sum(map(len, batch)) // threads)
    limit = min(_RUN_TOKENS, share)
    groups: list[list[int]] = []
    for place in sorted(range(len(batch)), key=lambda place: -len(batch[place])):
        longest = len(batch[groups[-1][0]]) if groups else 0
        full = not groups or longest * (len(groups[-1]) + 1) > limit
        if full or longest - len(batch[place]) >= _PADDING:
            groups.append([])
        groups[-1].append(place)
    return groups


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


class _Pooling(BaseModel):
    model_config = ConfigDict(extra="ignore")

    pooling_mode_mean_tokens: bool
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False


def _require_mean_pooling(folder: Path) -> None:
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return
    try:
        pooling = _Pooling.model_validate(read_json(path))
    except ValidationError:
        raise ModelError(path, "does not say how vectors are pooled") from None
    if pooling != _Pooling(pooling_mode_mean_tokens=True):
        raise StartupError(
            f"{path} asks for another pooling than the mean, which the ONNX backend does not have: "
            "set REFDESK_EMBED_BACKEND=sentence-transformers"
        )
