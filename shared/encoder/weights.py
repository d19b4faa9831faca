"""The weights and the shape of a BERT-family encoder, read from a model's folder and checked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from shared.errors import StartupError
from shared.modelstore.entry import ENTRY_FILE, ModelEntry, problems_of, read_entry
from shared.modelstore.progress import silent

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

Matrix = NDArray[np.float32]


class ModelError(StartupError):
    """A model's folder can't be used: which file, what is wrong with it, and what to do."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(
            f"{path} {fault}: check the model with `refdesk models verify`, and bring it anew with "
            "`refdesk models pull NAME`"
        )


# Model types whose first token has the position after the padding's id, so that the table of
# positions has so many rows more than a text may have tokens.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


def first_position(model_type: str, padding_id: int | None) -> int:
    """The position of a text's first token in the model's table of positions."""
    if model_type not in _POSITIONS_AFTER_PADDING:
        return 0
    return 1 + (1 if padding_id is None else padding_id)


class BertConfig(BaseModel):
    """What the graph needs to know of a model's config.json; other fields don't change it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["bert", "roberta", "xlm-roberta"]
    hidden_act: Literal["gelu"]
    position_embedding_type: Literal["absolute"] = "absolute"
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    type_vocab_size: int = Field(gt=0)
    layer_norm_eps: float = Field(gt=0)
    pad_token_id: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        return self


@dataclass(frozen=True)
class Weights:
    """The open weights file. A tensor is read, checked and converted when it is asked for, so that
    the whole file is never in memory at once.

    body: what stands before the names of the encoder's own tensors, such as ``bert.`` where a head
    was saved with it.
    """

    path: Path
    body: str
    _file: Any  # safetensors' handle, which has no public type

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        names: list[str] = self._file.keys()
        return name in names

    def rows(self, name: str) -> int:
        """The length of a tensor's first axis. Raises ModelError where it is missing."""
        try:
            return int(self._file.get_slice(name).get_shape()[0])
        except (SafetensorError, IndexError) as error:
            raise ModelError(self.path, f"lacks a readable tensor {name} ({error})") from None

    def tensor(self, name: str, *shape: int) -> Matrix:
        """A tensor as float32, of the encoder's own by its name without `body`.

        Raises ModelError where it is missing, misshapen or not finite.
        """
        try:
            stored = self.body + name if self.has(self.body + name) else name
            found = np.asarray(self._file.get_tensor(stored), dtype=np.float32)
        except (SafetensorError, TypeError, ValueError, OSError) as error:
            raise ModelError(self.path, f"lacks a readable tensor {name} ({error})") from None
        if found.shape != shape:
            shapes = f"{list(found.shape)}, config.json says {list(shape)}"
            raise ModelError(self.path, f"has the tensor {name} in the shape {shapes}")
        if not np.isfinite(found).all():
            raise ModelError(self.path, f"has numbers in the tensor {name} that are not finite")
        return found


def read_json(path: Path) -> Any:
    """A file's JSON. Raises ModelError where it can't be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(path, f"can't be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ModelError(path, "is not JSON") from None


def checked_entry(folder: Path) -> ModelEntry | None:
    """The store's entry of the folder, after comparing all files with it; None where it has none.

    Raises ModelError for the first file that is not the one that was stored.
    """
    if not (folder / ENTRY_FILE).is_file():
        return None
    entry = read_entry(folder)
    for problem in problems_of(entry, hashes=True, progress=silent):
        raise ModelError(folder / problem.file, problem.fault)
    return entry


def read_config(folder: Path) -> BertConfig:
    """The model's shape. Raises ModelError where it can't be read or is of another kind."""
    path = folder / CONFIG_FILE
    try:
        return BertConfig.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise ModelError(path, f"does not describe a BERT encoder ({reason})") from None


@contextmanager
def open_weights(folder: Path) -> Iterator[Weights]:
    """The weights in `folder`. Raises ModelError where the file is missing or damaged."""
    path = folder / WEIGHTS_FILE
    try:
        file = safe_open(path, framework="np")
    except FileNotFoundError:
        raise ModelError(path, "is missing") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(path, f"is damaged ({error})") from None
    with file as handle:
        words = "embeddings.word_embeddings.weight"
        names: list[str] = handle.keys()
        bodies = [name.removesuffix(words) for name in names if name.endswith(words)]
        yield Weights(path, min(bodies, key=len, default=""), handle)
