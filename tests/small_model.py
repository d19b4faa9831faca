"""A real model that costs little: the first layer of all-MiniLM-L6-v2, with BGE-M3's two heads.

The heads are made of a fixed seed, so that the weights of words and the vectors of tokens mean
nothing; how they are made, bounded and ordered is what tests can see of them.
"""

import json
import shutil
from pathlib import Path

from shared.modelstore.entry import ModelEntry
from shared.modelstore.folder import FolderSource
from shared.modelstore.store import ModelStore

NAME = "small"


def make_small_model(minilm_dir: Path, folder: Path) -> Path:
    """Write the model into the new `folder`, as a model hub would lay it out."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(
        minilm_dir, folder, ignore=shutil.ignore_patterns("entry.json", "*.safetensors")
    )
    weights = load_file(minilm_dir / "model.safetensors")
    later = tuple(f"encoder.layer.{number}." for number in range(1, 6))
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(later)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    made = torch.Generator().manual_seed(3)
    for head, outputs in (("sparse_linear", 1), ("colbert_linear", config["hidden_size"])):
        weight = torch.randn(outputs, config["hidden_size"], generator=made) / 10
        torch.save({"weight": weight, "bias": torch.zeros(outputs)}, folder / f"{head}.pt")
    return folder


def store_small_model(minilm_dir: Path, scratch: Path) -> ModelEntry:
    """The model in a store of its own, at ``scratch/models``."""
    folder = make_small_model(minilm_dir, scratch / NAME)
    return ModelStore(scratch / "models").pull(FolderSource(folder, NAME)).entry
