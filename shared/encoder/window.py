"""How long an input may be, as the files of a model's folder say."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.encoder.weights import CONFIG_FILE, ModelError, first_position, read_json

_SENTENCE_FILE = "sentence_bert_config.json"
_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# Some tokenizers say a number like 10^30 where they know of no limit.
_NO_LIMIT = 10**7


class _Positions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model_type: str = ""
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None


class _Sentence(BaseModel):
    model_config = ConfigDict(extra="ignore")

    max_seq_length: int | None = Field(None, gt=0)


class _TokenizerConfig(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model_max_length: int | None = Field(None, gt=0)


_File = TypeVar("_File", bound=BaseModel)


def window(folder: Path, truncation: int | None = None) -> int:
    """The model's own limit in tokens, special ones included.

    It is what sentence-transformers' file says or else the tokenizer's configuration, and never
    more than the model has positions. truncation: what `tokenizer.json` cuts at, believed only
    where nothing else is said, since it may be one training run's choice. Raises ModelError where a
    file is damaged or none says anything.
    """
    own = _read(folder / _SENTENCE_FILE, _Sentence).max_seq_length
    if own is None:
        own = _read(folder / _TOKENIZER_CONFIG_FILE, _TokenizerConfig).model_max_length
    said = [
        limit for limit in (own, _positions(folder)) if limit is not None and 0 < limit <= _NO_LIMIT
    ]
    if not said and truncation is not None:
        said = [truncation]
    if not said:
        raise ModelError(
            folder, f"does not say how long an input may be ({CONFIG_FILE}, {_SENTENCE_FILE})"
        )
    return min(said)


def read_first_position(folder: Path) -> int:
    """The position of a text's first token. Raises ModelError where config.json is damaged."""
    config = _read(folder / CONFIG_FILE, _Positions)
    return first_position(config.model_type, config.pad_token_id)


def _positions(folder: Path) -> int | None:
    """How many tokens the model has positions for."""
    positions = _read(folder / CONFIG_FILE, _Positions).max_position_embeddings
    return None if positions is None else positions - read_first_position(folder)


def _read(path: Path, file: type[_File]) -> _File:
    if not path.exists():
        return file()
    try:
        return file.model_validate(read_json(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelError(path, f"has a bad {where or 'form'}") from None
