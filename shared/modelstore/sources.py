"""What the store asks of a place that models come from, and which files it takes from there."""

import errno
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from shared.modelstore.entry import (
    ENTRY_FILE,
    ModelEntry,
    ModelFile,
    ModelStoreError,
    inside,
    weights_format,
)
from shared.modelstore.progress import Progress

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_DESCRIPTIVE = {".json", ".txt", ".model", ".md", ".jinja"}
_DESCRIPTIVE_NAMES = {"LICENSE", "LICENCE", "NOTICE", "COPYING"}
_PICKLE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
# The heads of BGE-M3 and models like it, which exist in no other format.
_HEADS = {"colbert_linear.pt", "sparse_linear.pt"}


@dataclass(frozen=True)
class Fetched:
    """What a source has put into the store's staging folder.

    files: path -> content, as hashed while it was written. source and licence: see `ModelEntry`.
    """

    files: Mapping[str, ModelFile]
    source: str
    licence: str


class Source(Protocol):
    """A place that one model comes from."""

    @property
    def name(self) -> str:
        """The model's name in the store."""

    def brings(self, entry: ModelEntry) -> bool:
        """Whether `entry` is what fetching would bring now, so that fetching can be left out.

        Raises ModelStoreError where the source does not answer.
        """

    def fetch(self, files: Path, scratch: Path, progress: Progress) -> Fetched:
        """Write the model's files into the empty folder `files`, each flushed to the disk.

        scratch: an empty folder for what is only needed on the way, on the same file system.
        Raises ModelStoreError saying what the source lacks, OSError when writing fails.
        """


def select(paths: Iterable[str], origin: str) -> list[str]:
    """The files of a model that the store takes: weights in one format and what describes them.

    Of several formats the first of safetensors, onnx, gguf is taken, and of several ONNX variants
    ``model.onnx``. Pickle files are not taken, because loading one can run code; except, beside
    safetensors, BGE-M3's two heads: what loads them (embed's backend `flag`) reads tensors alone.
    Raises ModelStoreError, naming `origin`, if a path leads outside or if no weights are left.
    """
    offered = []
    for path in paths:
        try:
            parts = PurePosixPath(inside(path)).parts
        except ValueError as error:
            raise ModelStoreError(f"{origin} is refused: {error}") from None
        hidden = any(part.startswith(".") for part in parts)
        if not hidden and path != ENTRY_FILE:  # the store writes an entry of its own
            offered.append(path)
    kind = weights_format(offered)
    if kind is None:
        pickles = [path for path in offered if PurePosixPath(path).suffix in _PICKLE]
        if pickles:
            raise ModelStoreError(
                f"{origin} has its weights only as pickle ({pickles[0]}), which can run code when "
                "it is loaded: convert them to safetensors first"
            )
        raise ModelStoreError(f"{origin} has no weights (.safetensors, .onnx or .gguf)")
    weights = [path for path in offered if f".{kind}" in PurePosixPath(path).name]
    if kind == "onnx":
        # ".onnx" is also part of the names of external data: model.onnx_data, model.onnx.data
        plain = [path for path in weights if PurePosixPath(path).name.startswith("model.onnx")]
        weights = plain or weights
    else:
        weights = [path for path in weights if path.endswith(f".{kind}")]
    if kind == "safetensors":
        weights += [path for path in offered if path in _HEADS]
    described = [path for path in offered if _describes(PurePosixPath(path))]
    return sorted({*weights, *described})


def _describes(path: PurePosixPath) -> bool:
    return path.suffix in _DESCRIPTIVE or path.stem.upper() in _DESCRIPTIVE_NAMES


def require_space(folder: Path, needed: int) -> None:
    """Raise ModelStoreError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelStoreError(
            f"the disk of the model store has {free / 1e6:,.0f} MB free and {needed / 1e6:,.0f} MB "
            "are needed: free some space, or set REFDESK_MODELS_DIR to a folder on another disk"
        )
