"""The graph built from a model's weights: built once, kept in a folder, checked when opened.

A file's name says all that its content depends on, and the hash of that content:
``<weights>-<config>-<precision>-v<builder>.<content>.onnx``. So a stale file is never found, a
damaged one never loaded.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from shared.durable import atomic_write
from shared.encoder.ready import ModelGraph
from shared.encoder.weights import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelError,
    checked_entry,
    open_weights,
    read_config,
)
from shared.errors import StartupError
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
    try:
        # Two services start at once: the second waits for the first one's graph.
        with _locked(built_dir):
            path = _intact(built_dir, stem) or _build(folder, built_dir, stem, precision, head)
    except OSError as error:
        raise StartupError(
            f"the model's graph can't be kept in {built_dir}: {error.strerror or error}; free "
            "some space, or set REFDESK_DATA_DIR to a folder that can be written to"
        ) from None
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


@contextmanager
def _locked(built_dir: Path) -> Iterator[None]:
    built_dir.mkdir(parents=True, exist_ok=True)
    with (built_dir / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel however the process ends
        yield


def _intact(built_dir: Path, stem: str) -> Path | None:
    """The file of that stem whose content is what its name says; others are removed."""
    for path in built_dir.glob(f"{stem}.*.onnx"):
        if path.name == _name(stem, hash_file(path).sha256):
            return path
        path.unlink()
    return None


def _build(folder: Path, built_dir: Path, stem: str, precision: Precision, head: Head) -> Path:
    # Imported only here: a process that finds its graph built does without onnx in memory.
    from shared.encoder.graph import Float32, classifier_graph, encoder_graph
    from shared.encoder.quantize import Int8

    arithmetic = Int8() if precision == "int8" else Float32()
    make = encoder_graph if head == "encoder" else classifier_graph
    with open_weights(folder) as weights:
        graph = make(read_config(folder), weights, arithmetic).SerializeToString()
    path = built_dir / _name(stem, hashlib.sha256(graph).hexdigest())
    built_dir.mkdir(parents=True, exist_ok=True)
    atomic_write(path, graph)
    return path


def _name(stem: str, content: str) -> str:
    return f"{stem}.{content[:16]}.onnx"
