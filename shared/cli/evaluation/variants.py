"""Ways to ask the desk: the arms, and what a file of named settings adds to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.cli.failures import CliError
from shared.finite import not_finite

DEFAULT = "curated"
SINGLE = ("bm25", "dense", "sparse")
# What the evaluation itself puts into each request.
_TAKEN = ("query", "messages", "corpora")


@dataclass(frozen=True)
class Variant:
    """A way to ask: a name, and the fields of POST /retrieve that are not the desk's default."""

    name: str
    settings: Mapping[str, Any]


# `curated` names no field: it is what the desk does by default.
ARMS = (
    Variant("bm25", {"arms": ["bm25"], "curate": False}),
    Variant("dense", {"arms": ["dense"], "curate": False}),
    Variant("sparse", {"arms": ["sparse"], "curate": False}),
    Variant("fused", {"curate": False}),
    Variant(DEFAULT, {}),
)
ARM_NAMES = tuple(arm.name for arm in ARMS)
# Few models make sparse vectors.
EVERYWHERE = tuple(name for name in ARM_NAMES if name != "sparse")


def chosen_arms(names: str) -> list[Variant]:
    """The arms that `names` lists with commas, in the order of ARMS. Raises CliError."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in ARM_NAMES:
            raise CliError(f"--arms: there is no arm '{name}'; there is {', '.join(ARM_NAMES)}")
    if not wanted:
        raise CliError(f"--arms: name at least one of {', '.join(ARM_NAMES)}")
    return [arm for arm in ARMS if arm.name in wanted]


def read_variants(path: Path) -> list[Variant]:
    """The variants in a YAML file, ``{NAME: {FIELD: VALUE, …}, …}``.

    What a field may hold the desk knows; here only the file's form is looked at. Raises CliError
    naming the file and what is wrong in it.
    """
    try:
        data = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise CliError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(f"{path}: not UTF-8") from None
    except yaml.YAMLError as error:
        raise CliError(f"{path}: not YAML: {error}") from None
    if not isinstance(data, dict) or not data:
        raise CliError(f"{path}: must hold named settings: NAME: {{FIELD: VALUE}}")
    return [_variant(path, name, settings) for name, settings in data.items()]


def _variant(path: Path, name: object, settings: object) -> Variant:
    if not isinstance(name, str) or not name.strip():
        raise CliError(f"{path}: the name {name!r} must be a text; put it between quotes")
    if name in ARM_NAMES:
        raise CliError(f"{path}: '{name}' is the name of an arm; take another one")
    if not isinstance(settings, dict) or not settings:
        raise CliError(f"{path}: {name}: must hold at least one FIELD: VALUE")
    for field in settings:
        if not isinstance(field, str):
            raise CliError(f"{path}: {name}: the field {field!r} must be a text")
        if field in _TAKEN:
            raise CliError(f"{path}: {name}: {field} is what the evaluation itself sets; remove it")
    endless = not_finite(settings)
    if endless is not None:
        raise CliError(f"{path}: {name}: {endless} must be a finite number")
    return Variant(name, settings)


def baseline_of(arms: Sequence[str], asked: str, ndcg: Mapping[str, float]) -> str:
    """The arm that the others are compared with: the one asked for, or else the best single one.

    asked: as `check_baseline` let it pass, empty for none. ndcg: mean nDCG@10 by arm. Where no
    single arm was run it is the first of `arms`.
    """
    if asked:
        return asked
    single = [name for name in SINGLE if name in arms]
    return max(single, key=lambda name: ndcg[name]) if single else arms[0]


def check_baseline(asked: str, arms: Sequence[str]) -> None:
    """Raise CliError for a baseline that is not among the arms that are run."""
    if asked and asked not in arms:
        raise CliError(f"--baseline: '{asked}' is not among the arms run: {', '.join(arms)}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that comes twice is an error instead of a loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused below
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key.value}' comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
