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


class BertConfig(BaseModel):
    """What the graph needs to know of a model's config.json; other fields don't change it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["bert"]
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

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        return self


@dataclass(frozen=True)
class Weights:
    """The open weights file. A tensor is read, checked and converted when it is asked for, so that
    the whole file is never in memory at once.
    """

    path: Path
    _file: Any  # safetensors' handle, which has no public type

    def tensor(self, name: str, *shape: int) -> Matrix:
        """A tensor as float32. Raises ModelError where it is missing, misshapen or not finite."""
        try:
            found = np.asarray(self._file.get_tensor(name), dtype=np.float32)
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
    except ValueError:
        raise ModelError(path, "is not JSON") from None


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
        yield Weights(path, handle)
