"""A graph on ONNX Runtime: token ids in, its outputs out, runs of like lengths side by side."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.encoder.ready import AS_EXPORTED, ModelGraph
from shared.encoder.tokenizer import Tokenized
from shared.encoder.weights import ModelError
from shared.errors import StartupError

Vectors = NDArray[np.float32]
Text = TypeVar("Text", bound=Tokenized)
Result = TypeVar("Result")

# Padded tokens in one run of the graph, at most, where it holds several texts. It bounds what the
# runtime's arena can grow to; larger runs are not faster.
_RUN_TOKENS = 256
# Padding a text by fewer tokens than this takes less time than another run.
_PADDING = 32
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


def open_session(graph: str | bytes) -> onnxruntime.InferenceSession:
    """A session on one thread of the CPU for a graph, given as a path or as its bytes."""
    options = onnxruntime.SessionOptions()
    # Runs go side by side instead (Runner): the runtime's own threads wait for each other at
    # every operator, which takes a quarter more CPU time, and twice as much while they spin.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors are raised; what is below them is the optimiser's talk
    # It would keep a plan for every shape that was ever seen.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def load_graph(graph: ModelGraph) -> onnxruntime.InferenceSession:
    """A session for a model's graph.

    Raises ModelError for a ready graph that can't be loaded or asks for inputs that are not a
    text's, StartupError for a built one that can't be loaded.
    """
    try:
        session = open_session(str(graph.path))
    except Exception as error:  # the runtime's exceptions have no common base
        if graph.precision == AS_EXPORTED:
            raise ModelError(graph.path, f"can't be loaded by ONNX Runtime ({error})") from None
        raise StartupError(
            f"ONNX Runtime can't load the graph {graph.path}: {error}; remove the file, and it "
            "is built again"
        ) from None
    names = {given.name for given in session.get_inputs()}
    if "input_ids" not in names or names - _INPUTS:
        raise ModelError(
            graph.path,
            f"takes {', '.join(sorted(names))}, where a text gives {', '.join(sorted(_INPUTS))}",
        )
    return session


class Runner:
    """Runs one graph over batches of texts. May be called from any thread, until it is closed.

    outputs: the names of those that are wanted. threads: how many runs may go side by side.
    first_position: of a text's first token, for graphs that ask for positions.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        outputs: Sequence[str],
        *,
        threads: int,
        first_position: int = 0,
    ) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._inputs = {
            given.name: np.int32 if given.type == "tensor(int32)" else np.int64
            for given in session.get_inputs()
        }
        self._first_position = first_position
        self._threads = threads
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="encoder")

    def run(
        self, batch: Sequence[Text], finish: Callable[[Text, list[Vectors]], Result]
    ) -> list[Result]:
        """What `finish` makes of each text and its part of every output, padding included.

        It is called on the threads that run the graph, so that its work is shared out, too.
        """

        def answer(group: Sequence[int]) -> list[Result]:
            outputs = self._answer([batch[place] for place in group])
            return [
                finish(batch[place], [output[row] for output in outputs])
                for row, place in enumerate(group)
            ]

        groups = _groups(batch, self._threads)
        # A query is not worth waking another thread for.
        side_by_side = map if len(groups) == 1 else self._workers.map
        answers: Iterable[list[Result]] = side_by_side(answer, groups)
        results = {
            place: result
            for group, made in zip(groups, answers, strict=True)
            for place, result in zip(group, made, strict=True)
        }
        return [results[place] for place in range(len(batch))]

    def close(self) -> None:
        """Let go of the graph and its threads. Nothing can be run any more."""
        self._workers.shutdown()
        del self._session

    def _answer(self, texts: Sequence[Tokenized]) -> list[Vectors]:
        """The graph's outputs for texts of like lengths."""
        longest = max(map(len, texts))
        ids = np.zeros((len(texts), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text.ids
            mask[row, : len(text)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            types = np.zeros_like(ids)
            for row, text in enumerate(texts):
                types[row, : len(text.types)] = text.types
            feed["token_type_ids"] = types
        if "position_ids" in self._inputs:
            positions = np.arange(self._first_position, self._first_position + longest)
            feed["position_ids"] = np.broadcast_to(positions, ids.shape)
        given = {name: feed[name].astype(kind, copy=False) for name, kind in self._inputs.items()}
        outputs: list[Vectors] = self._session.run(self._outputs, given)
        return [output.astype(np.float32, copy=False) for output in outputs]


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
