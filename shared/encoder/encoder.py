"""The encoder: token ids in, unit vectors out, one for each text or one for each token."""

from collections.abc import Iterator, Sequence
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

# Padded tokens in one run of the graph. It bounds what the runtime's arena can grow to, and larger
# runs are not faster: activations of this size still fit the caches.
_RUN_TOKENS = 512
# Padding a text by fewer tokens than this takes less time than another run.
_PADDING = 32


def open_session(graph: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU for a graph, given as a path or as its bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors are raised; what is below them is the optimiser's talk
    # It would keep a plan for every shape that was ever seen.
    options.enable_mem_pattern = False
    # Otherwise idle threads spin for a while, on cores that the other services need.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Encoder:
    """A model that is loaded. Its methods may be called from any thread.

    tokenizer: makes what the methods take. revision: of the vectors: weights and precision.
    dimension: numbers in a vector.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, tokenizer: TextTokenizer, revision: str
    ) -> None:
        self._session = session
        self.tokenizer = tokenizer
        self.revision = revision
        self.dimension: int = session.get_outputs()[0].shape[-1]

    @classmethod
    def open(cls, folder: Path, built_dir: Path, precision: Precision, threads: int) -> "Encoder":
        """Load the model in `folder`; the first time, build its graph into `built_dir`.

        threads: for one inference. Raises ModelError where the model's files are missing, damaged
        or of a kind that this encoder can't run, StartupError where `built_dir` can't be used.
        """
        _require_mean_pooling(folder)
        tokenizer = TextTokenizer(folder)
        built = built_graph(folder, built_dir, precision)
        try:
            session = open_session(str(built.path), threads)
        except Exception as error:  # the runtime's exceptions have no common base
            raise StartupError(
                f"ONNX Runtime can't load the graph {built.path}: {error}; remove the file, and it "
                "is built again"
            ) from None
        return cls(session, tokenizer, built.revision)

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
        for places in _runs(batch):
            longest = len(batch[places[0]])
            ids = np.zeros((len(places), longest), np.int64)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                ids[row, : len(batch[place])] = batch[place].ids
                mask[row, : len(batch[place])] = 1
            [hidden] = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
            for row, place in enumerate(places):
                yield place, hidden[row, : len(batch[place])]


def _runs(batch: Sequence[Tokenized]) -> Iterator[list[int]]:
    """The places of a batch in groups to run together, each of like lengths, longest first."""
    group: list[int] = []
    for place in sorted(range(len(batch)), key=lambda place: -len(batch[place])):
        if group:
            longest = len(batch[group[0]])
            full = longest * (len(group) + 1) > _RUN_TOKENS
            if full or longest - len(batch[place]) >= _PADDING:
                yield group
                group = []
        group.append(place)
    if group:
        yield group


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
