"""The policy file: read and checked. What it is while a service runs: routing/in_force.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from services.generate.policy.lint import Finding, Place, lint
from services.generate.policy.schema import Policy
from shared.errors import shown

_MAX_BYTES = 1024 * 1024
_SHOWN_FINDINGS = 3
# Is asked last, of a policy that is good by itself: what speaks against it all the same. Where
# nothing does, the policy is going to be used.
Admit = Callable[[Policy], list[Finding]]


class PolicyError(Exception):
    """A policy can't be used. findings: one line each, ``FILE:LINE: place: what``."""

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        more = len(findings) - _SHOWN_FINDINGS
        words = "; ".join(findings[:_SHOWN_FINDINGS])
        super().__init__(f"{words}; and {more} more" if more > 0 else words)


@dataclass(frozen=True)
class Checked:
    """A policy that is good by itself. name: of its file; lines: of its places there."""

    policy: Policy
    name: str
    lines: Mapping[Place, int]

    def unless(self, found: list[Finding]) -> Policy:
        """The policy. Raises PolicyError where something was found against it."""
        if found:
            raise PolicyError(
                [_finding(self.name, self.lines, one.place, one.message) for one in found]
            )
        return self.policy


def admit_any(policy: Policy) -> list[Finding]:  # noqa: ARG001 - an Admit looks at it
    """Have nothing against any policy."""
    return []


def default_policy(admit: Admit = admit_any) -> Policy:
    """The policy that comes with the package. Raises PolicyError where `admit` is against it."""
    resource = files("services.generate.policy").joinpath("default.yaml")
    return parse(resource.read_text(encoding="utf-8"), "default.yaml", admit)


def load(path: Path, admit: Admit = admit_any) -> Policy:
    """The policy of a file. Raises PolicyError where it can't be read or used, or isn't admitted,
    and what `admit` raises.
    """
    read = read_policy(path)
    return read.unless(admit(read.policy))


def parse(text: str, name: str, admit: Admit = admit_any) -> Policy:
    """The policy that a text says. name: of the file, for messages. Raises as `load`."""
    read = _parse(text, name)
    return read.unless(admit(read.policy))


def read_policy(path: Path) -> Checked:
    """The policy of a file, before anybody is asked whether it is admitted. Raises PolicyError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError([f"{path}: can't be read: {error.strerror}"]) from None
    if len(raw) > _MAX_BYTES:
        raise PolicyError([f"{path}: has over {_MAX_BYTES} bytes: is it a policy?"])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError([f"{path}: is not text in UTF-8"]) from None
    return _parse(text, str(path))


def _parse(text: str, name: str) -> Checked:
    data, lines = _data(text, name)
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        findings = [
            _finding(name, lines, fault["loc"], fault["msg"].removeprefix("Value error, "))
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise PolicyError(findings) from None
    read = Checked(policy, name, lines)
    read.unless(lint(policy))
    return read


def _finding(name: str, lines: Mapping[Place, int], place: Place, message: str) -> str:
    known = place
    while known not in lines:  # a missing field has no line, nor has a part that pydantic made up
        known = known[:-1]
    where = ".".join(shown(str(part)) for part in place)
    return f"{name}:{lines[known]}: {f'{where}: ' if where else ''}{shown(message, 500)}"


def _data(text: str, name: str) -> tuple[Any, Mapping[Place, int]]:
    """The data of a YAML text, and the line of each of its places."""
    try:
        loader = yaml.SafeLoader(text)
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                where = _where(name, event.start_mark)
                raise PolicyError([f"{where}: anchors and aliases are not taken"])
        node = loader.get_single_node()
        lines: dict[Place, int] = {(): 1}
        if node is None:
            raise PolicyError([f"{name}:1: is empty"])
        _note_lines(node, (), lines, name)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        where = _where(name, error.problem_mark)
        raise PolicyError([f"{where}: is not YAML: {error.problem}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError):
        raise PolicyError([f"{name}: is not YAML"]) from None


def _note_lines(node: yaml.Node, place: Place, lines: dict[Place, int], name: str) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*place, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            here = (*place, str(key.value))
            if here in lines:
                raise PolicyError([f"{name}:{line}: {key.value} stands twice"])
            lines[here] = line
            _note_lines(value, here, lines, name)


def _where(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}" if mark else name
