"""A language model on ONNX Runtime: a prompt's tokens in, its continuation out, step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.generate.prompting.prompt import Message
from services.generate.tiers.small_llm.checkpoint import Checkpoint
from services.generate.tiers.small_llm.graph import llama_graph
from services.generate.tiers.small_llm.tokenizer import (
    ChatTokenizer,
    form_from_json,
    form_to_json,
    vocabulary,
)
from shared.errors import StartupError
from shared.modelstore.derived import derived
from shared.modelstore.entry import hash_file

_BUILDER = 1  # raise it whenever other bytes are made of the same file
_BATCH = 128  # tokens read at a time: between two batches a draft can be stopped
_LARGEST = 2**31 - 1  # bytes of a graph in one file
_WINDOW = 2**15  # tokens that a graph has positions for, at most: they take room, too
# What is kept beside the graph, in its file.
_TOKENIZER, _FORM, _POSITIONS = "refdesk.tokenizer", "refdesk.chat", "refdesk.positions"


@dataclass(frozen=True)
class Step:
    """The model has run once.

    read: tokens of the prompt so far. written: tokens of the draft so far, the one that ends it
    included. piece: the text that this step added. ended: the model wrote that it is done.
    """

    read: int
    written: int
    piece: str
    ended: bool


class LanguageModel:
    """The model of one GGUF file, and its memory of one text. Used in one thread.

    sha256: of the file, in hex. folder: where what is made of it is kept. threads: of one run.
    context: the window, in tokens. Raises StartupError where the model can't be run.
    """

    def __init__(
        self, path: Path, sha256: str, folder: Path, *, threads: int, context: int
    ) -> None:
        stem = f"{sha256[:12]}-llm-v{_BUILDER}"
        graph = derived(folder, stem, ".onnx", lambda: _built(path, sha256))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait for each other take half as much CPU time again, on a
        # busy machine from those that they wait for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors are raised; below them is the optimiser's talk
        options.enable_mem_pattern = False  # it would keep a plan for every length of a batch
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions have no common base
            raise StartupError(f"ONNX Runtime can't run {path}: {error}") from None
        kept = self._session.get_modelmeta().custom_metadata_map
        try:
            self.chat = ChatTokenizer(
                Tokenizer.from_str(kept[_TOKENIZER]), form_from_json(kept[_FORM])
            )
        except ValueError as error:
            raise StartupError(f"{path} can't be run here: {error}") from None
        if context > int(kept[_POSITIONS]):
            raise StartupError(
                f"REFDESK_LLM_CONTEXT is {context}, and {path.name} can read at most "
                f"{kept[_POSITIONS]} tokens"
            )
        self.context = context
        self._held: list[int] = []  # the tokens whose keys and values are in memory
        self._bind()

    def _bind(self) -> None:
        """Give the session memory of its own for keys, values and logits, once and for all."""
        self._binding = self._session.io_binding()
        self._memory: list[NDArray[np.float32]] = []
        for given in self._session.get_inputs():
            if not given.name.startswith("past_"):
                continue
            _, heads, _, head = given.shape
            # Memory that was never written to takes no room: short texts use little of it.
            kept = np.zeros((1, heads, self.context, head), np.float32)
            place = (np.float32, kept.shape, kept.ctypes.data)
            self._binding.bind_input(given.name, "cpu", 0, *place)
            self._binding.bind_output(given.name.removeprefix("past_"), "cpu", 0, *place)
            self._memory.append(kept)
        [logits] = [one for one in self._session.get_outputs() if one.name == "logits"]
        self._logits = np.zeros(logits.shape, np.float32)
        place = (np.float32, self._logits.shape, self._logits.ctypes.data)
        self._binding.bind_output("logits", "cpu", 0, *place)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The chat's tokens."""
        return self.chat.tokens(messages)

    def write(self, prompt: Sequence[int], most: int) -> Iterator[Step]:
        """Read the prompt and write up to `most` tokens, each the likeliest, as long as somebody
        asks for the next step. Both together must fit the window."""
        # The beginning that this prompt shares with the last text is read already: the system's
        # turn, as a rule. It is the same tokens, so nothing of the last text gets any further.
        read = 0
        shared = min(len(self._held), len(prompt) - 1)
        while read < shared and self._held[read] == prompt[read]:
            read += 1
        del self._held[read:]
        likeliest = 0
        while read < len(prompt):
            batch = prompt[read : read + _BATCH]
            likeliest = self._next(batch)
            read += len(batch)
            if read < len(prompt):
                yield Step(read, 0, "", ended=False)
        text = self.chat.reader()
        for written in range(1, most + 1):
            if likeliest in self.chat.ends:
                yield Step(read, written, "", ended=True)
                return
            yield Step(read, written, text.text(likeliest), ended=False)
            if written < most:
                likeliest = self._next([likeliest])

    def _next(self, tokens: Sequence[int]) -> int:
        """Read these tokens after those that are held; the likeliest to follow."""
        total = len(self._held) + len(tokens)
        binding = self._binding
        binding.bind_cpu_input("input_ids", np.array([tokens], np.int64))
        binding.bind_cpu_input("before", np.array([total - 1], np.int32))
        binding.bind_cpu_input("total", np.array(total, np.int32))
        self._session.run_with_iobinding(binding)
        self._held += tokens
        return int(self._logits.argmax())


def _built(path: Path, sha256: str) -> bytes:
    """The graph of the GGUF file at `path`, with its vocabulary."""
    if hash_file(path).sha256 != sha256:  # or a damaged one would be kept under a whole one's name
        raise StartupError(
            f"{path} is not the file that was stored; check it with `refdesk models verify`"
        )
    checkpoint = Checkpoint(path)
    tokenizer, form = vocabulary(checkpoint)
    positions = min(checkpoint.shape.window, _WINDOW)
    graph = llama_graph(checkpoint, positions)
    for key, value in (
        (_TOKENIZER, tokenizer.to_str()),
        (_FORM, form_to_json(form)),
        (_POSITIONS, str(positions)),
    ):
        graph.metadata_props.add(key=key, value=value)
    if graph.ByteSize() > _LARGEST:
        raise checkpoint.refusal("in 8 bits it takes over 2 GiB")
    content: bytes = graph.SerializeToString()
    return content
