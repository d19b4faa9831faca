"""How a model makes one vector of its token vectors, as its folder says."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from shared.encoder.weights import ModelError, read_json
from shared.errors import StartupError

Pooling = Literal["mean", "cls"]

_POOLING_FILE = Path("1_Pooling") / "config.json"
_MODULES_FILE = "modules.json"


class _Pooling(BaseModel):
    """Either form of the file: a list of modes, or a switch for each."""

    model_config = ConfigDict(extra="ignore")

    pooling_mode: str | list[str] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    @property
    def modes(self) -> list[str]:
        if self.pooling_mode is not None:
            return [self.pooling_mode] if isinstance(self.pooling_mode, str) else self.pooling_mode
        switches = self.model_dump(exclude={"pooling_mode"})
        names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
        return [names.get(name, name) for name, on in switches.items() if on]


class _Module(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: str


_MODULES = TypeAdapter(list[_Module])


def read_pooling(folder: Path) -> Pooling:
    """The pooling of the model in `folder`; the mean where it does not say.

    Raises ModelError where the file is damaged, StartupError for one that only PyTorch can do.
    """
    path = folder / _POOLING_FILE
    if not path.exists():
        return "mean"
    try:
        modes = _Pooling.model_validate(read_json(path)).modes
    except ValidationError:
        modes = []
    if not modes:
        raise ModelError(path, "does not say how vectors are pooled")
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise StartupError(
        f"{path} asks for another pooling than the mean or the first token, which this backend "
        "does not have: choose the backend sentence-transformers"
    )


def require_modules(folder: Path, allowed: frozenset[str], otherwise: str) -> None:
    """Raise StartupError where the model has further modules than `allowed`, such as a Dense layer
    after its encoder; ModelError where the list of them is damaged. otherwise: what to do then."""
    path = folder / _MODULES_FILE
    if not path.exists():
        return
    try:
        modules = _MODULES.validate_python(read_json(path))
    except ValidationError:
        raise ModelError(path, "does not list the model's modules") from None
    for module in modules:
        name = module.type.rpartition(".")[2]
        if name not in allowed:
            raise StartupError(
                f"{path} asks for a module {name}, which this backend does not have: {otherwise}"
            )
