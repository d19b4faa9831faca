"""The prompts that a model was trained with: what it wants before a text, by the use of it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.encoder.weights import ModelError, read_json
from shared.errors import StartupError

_PROMPTS_FILE = "config_sentence_transformers.json"
_POOLING_FILE = Path("1_Pooling") / "config.json"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None


class _Pooling(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_prompt: bool = True


def read_prompts(folder: Path) -> dict[str, str]:
    """The prompts in a model's folder by name, such as ``query``; most models have none.

    Raises ModelError where a file of it is damaged, StartupError for a model that leaves the
    prompt's tokens out of its vectors, which no backend here does.
    """
    prompts = _read(folder / _PROMPTS_FILE).prompts
    if any(prompts.values()) and not _includes_prompt(folder / _POOLING_FILE):
        raise StartupError(
            f"{folder / _POOLING_FILE} leaves the prompt out of the vectors, which embed can't do; "
            "choose another model with REFDESK_EMBED_MODEL"
        )
    return prompts


def read_default_prompt(folder: Path) -> str:
    """What the model wants before a text whose request names no prompt and no use; mostly nothing.

    Raises ModelError where the file is damaged, or names a prompt that it does not give.
    """
    path = folder / _PROMPTS_FILE
    config = _read(path)
    if config.default_prompt_name is None:
        return ""
    try:
        return config.prompts[config.default_prompt_name]
    except KeyError:
        fault = f"lacks its default prompt {config.default_prompt_name!r}"
        raise ModelError(path, fault) from None


def _read(path: Path) -> _Config:
    if not path.exists():
        return _Config()
    try:
        return _Config.model_validate(read_json(path))
    except ValidationError:
        raise ModelError(path, "gives prompts that are not texts by name") from None


def _includes_prompt(path: Path) -> bool:
    if not path.exists():
        return True
    try:
        return _Pooling.model_validate(read_json(path)).include_prompt
    except ValidationError:
        raise ModelError(path, "does not say how vectors are pooled") from None
