"""A graph that a model's folder brings: exported by optimum, sentence-transformers, fastembed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from shared.encoder.weights import WEIGHTS_FILE, ModelError, checked_entry
from shared.modelstore.entry import hash_file

# The precision of a ready graph: whatever it was exported in.
AS_EXPORTED = "as exported"

_PREFERRED = "model.onnx"
# Files beside a graph that describe the model; all others may hold a part of its weights.
_DESCRIPTIVE = frozenset({".json", ".txt", ".md", ".model", ".jinja", ".onnx"})


@dataclass(frozen=True)
class ModelGraph:
    """A graph on disk. revision: of what it gives (weights and precision). precision: of its
    arithmetic. nbytes: of its weights."""

    path: Path
    revision: str
    precision: str
    nbytes: int


def ready_graph(folder: Path) -> ModelGraph | None:
    """The graph in `folder`; None where there is none, or weights in safetensors beside it.

    Raises ModelError where there are several and none has the usual name, or where a file is not
    the one that was stored.
    """
    if (folder / WEIGHTS_FILE).exists():
        return None
    found = sorted(folder.rglob("*.onnx"))
    if not found:
        return None
    named = found if len(found) == 1 else [path for path in found if path.name == _PREFERRED]
    if len(named) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ModelError(folder, f"holds several graphs ({names}), and not one {_PREFERRED}")
    path = named[0]
    checked_entry(folder)
    parts = [path, *_external_data(path)]
    try:
        hashes = [hash_file(part) for part in parts]
    except OSError as error:
        raise ModelError(path, f"can't be read ({error.strerror})") from None
    digest = hashlib.sha256("".join(part.sha256 for part in hashes).encode()).hexdigest()
    content = hashes[0].sha256 if len(hashes) == 1 else digest
    return ModelGraph(path, f"{content[:12]}-onnx", AS_EXPORTED, sum(part.bytes for part in hashes))


def _external_data(graph: Path) -> list[Path]:
    """The files that may hold weights of the graph, which is limited to 2 GB by itself."""
    return sorted(
        path
        for path in graph.parent.iterdir()
        if path.is_file() and path.suffix not in _DESCRIPTIVE and not path.name.startswith(".")
    )
