"""The graph built from a model's weights: built once, kept in a folder, checked when opened."""

import hashlib
from pathlib import Path
from typing import Literal

from shared.encoder.ready import ModelGraph
from shared.encoder.weights import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelError,
    checked_entry,
    open_weights,
    read_config,
)
from shared.modelstore.derived import derived
from shared.modelstore.entry import hash_file
from shared.settings import Precision

# What the graph ends in: a vector for each token, or the logits of a pair of texts.
Head = Literal["encoder", "classifier"]

# Raise it whenever the builder gives another graph for the same weights. It is part of the
# revision from 2 on; 1 is left out, since corpora carry stamps from before it counted.
_BUILDER = 1


def built_graph(
    folder: Path, built_dir: Path, precision: Precision, head: Head = "encoder"
) -> ModelGraph:
    """The graph of the model in `folder`, from `built_dir` or built into it now.

    Raises ModelError where the model's files are missing or damaged, StartupError where `built_dir`
    can't be written to.
    """
    weights = _weights_hash(folder)
    config = hashlib.sha256(_read(folder / CONFIG_FILE)).hexdigest()
    revision = f"{weights[:12]}-{precision}" + (f"-v{_BUILDER}" if _BUILDER > 1 else "")
    kind = precision if head == "encoder" else f"{head}-{precision}"
    stem = f"{weights[:12]}-{config[:8]}-{kind}-v{_BUILDER}"
    path = derived(built_dir, stem, ".onnx", lambda: _build(folder, precision, head))
    return ModelGraph(path, revision, precision, path.stat().st_size)


def _weights_hash(folder: Path) -> str:
    """SHA-256 of the weights, after comparing all files with the store's entry if there is one."""
    entry = checked_entry(folder)
    if entry is None:
        path = folder / WEIGHTS_FILE
        try:
            return hash_file(path).sha256
        except OSError as error:
            raise ModelError(path, f"can't be read ({error.strerror})") from None
    if WEIGHTS_FILE not in entry.files:
        raise ModelError(folder, f"holds no {WEIGHTS_FILE}")
    return entry.files[WEIGHTS_FILE].sha256


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(path, f"can't be read ({error.strerror})") from None


def _build(folder: Path, precision: Precision, head: Head) -> bytes:
    # Imported only here: a process that finds its graph built does without onnx in memory.
    from shared.encoder.graph import Float32, classifier_graph, encoder_graph
    from shared.encoder.quantize import Int8

    arithmetic = Int8() if precision == "int8" else Float32()
    make = encoder_graph if head == "encoder" else classifier_graph
    with open_weights(folder) as weights:
        built: bytes = make(read_config(folder), weights, arithmetic).SerializeToString()
    return built
