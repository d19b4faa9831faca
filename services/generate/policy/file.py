"""The policy file: read, checked, and read anew when it changes; the last good one is kept."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from services.generate.policy.lint import Finding, Place, lint
from services.generate.policy.schema import Policy
from services.generate.routing.learned.model import RouterModel, read_router
from services.generate.routing.learned.outcomes import OutcomesError
from shared.errors import ApiError, shown
from shared.telemetry import get_logger

log = get_logger(__name__)

LOADS = Counter("refdesk_generate_policy_loads_total", "Policy files read, by outcome", ["outcome"])
STALE = Gauge(
    "refdesk_generate_policy_stale", "1 while the policy file can't be used and the last good holds"
)
_MAX_BYTES = 1024 * 1024
LOOK_EVERY_S = 1.0
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
class _Signature:
    """What tells one state of a file from another."""

    modified_ns: int
    size: int
    inode: int


_Signatures = tuple[_Signature | None, _Signature | None]  # of the policy and of its router


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
    return parse(text, str(path), admit)


def parse(text: str, name: str, admit: Admit = admit_any) -> Policy:
    """The policy that a text says. name: of the file, for messages. Raises as `load`."""
    data, lines = _read(text, name)
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        findings = [
            _finding(name, lines, fault["loc"], fault["msg"].removeprefix("Value error, "))
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise PolicyError(findings) from None
    found = lint(policy) or admit(policy)
    if found:
        raise PolicyError([_finding(name, lines, one.place, one.message) for one in found])
    return policy


def _finding(name: str, lines: Mapping[Place, int], place: Place, message: str) -> str:
    known = place
    while known not in lines:  # a missing field has no line, nor has a part that pydantic made up
        known = known[:-1]
    where = ".".join(shown(str(part)) for part in place)
    return f"{name}:{lines[known]}: {f'{where}: ' if where else ''}{shown(message, 500)}"


def _read(text: str, name: str) -> tuple[Any, Mapping[Place, int]]:
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


def router_file(policy: Policy, folder: Path) -> Path | None:
    """Where the learned router of a policy in this folder is, if it has one."""
    return folder / policy.learned.model if policy.learned is not None else None


def read_named_router(file: Path | None) -> tuple[RouterModel | None, list[Finding]]:
    """The learned router in a file that a policy names, or why it can't be used."""
    if file is None:
        return None, []
    try:
        return read_router(file), []
    except OutcomesError as error:
        why = str(error)
    except OSError as error:
        why = f"{file} can't be read: {error.strerror}"
    return None, [Finding(("learned", "model"), why)]


class PolicyFile:
    """The policy that holds now, and with it the learned router that it names, `router`.

    path: the file, or None for the packaged default, which never changes. clock: seconds,
    monotonic. admit: has the last word on each policy, in whatever thread; the ApiError that it
    raises comes from here, too, and later keeps the last good policy until the file is read again.
    Raises PolicyError where the file can't be used: a service does not start with it.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], float] = time.monotonic,
        admit: Admit = admit_any,
    ) -> None:
        self._path = path
        self._clock = clock
        self._admit = admit
        # Of the last policy that was good by itself.
        self._router_file: Path | None = None
        self._router_signature: _Signature | None = None
        self.router: RouterModel | None = None
        signature = _signature(path)
        self._policy, self.router = self._load(path) if path else (default_policy(admit), None)
        self._signature: _Signatures = signature, self._router_signature
        self._looked = clock()
        self._reading = asyncio.Lock()
        self.error: str | None = None
        STALE.set(0)

    async def current(self) -> Policy:
        """The policy, read anew where the file has changed since it was looked at a second ago.

        A file that can't be used changes nothing: `error` says what is wrong, until it is right.
        """
        if self._path and self._clock() - self._looked >= LOOK_EVERY_S:
            self._looked = self._clock()
            signature = _signature(self._path), _signature(self._router_file)
            if signature != self._signature and not self._reading.locked():
                async with self._reading:
                    await self._reload(self._path)
        return self._policy

    async def _reload(self, path: Path) -> None:
        signature = _signature(path)  # before the file is read: a later change is seen
        try:
            policy, router = await asyncio.to_thread(self._load, path)
        except PolicyError as error:
            self._keep(path, str(error))
        except ApiError as error:  # the database does not answer: try again
            self._keep(path, error.message)
            signature = None
        else:
            self._replace(path, policy)
            self.router = router
        self._signature = signature, self._router_signature

    def _load(self, path: Path) -> tuple[Policy, RouterModel | None]:
        """A policy and its router, both good. Raises as `load`."""
        router: RouterModel | None = None

        def admit(policy: Policy) -> list[Finding]:
            nonlocal router
            self._router_file = router_file(policy, path.parent)
            self._router_signature = _signature(self._router_file)
            router, found = read_named_router(self._router_file)
            return found or self._admit(policy)

        return load(path, admit), router

    def _keep(self, path: Path, why: str) -> None:
        self.error = why
        LOADS.labels("refused").inc()
        STALE.set(1)
        log.error("policy_refused", file=str(path), kept=self._policy.fingerprint, why=why)

    def _replace(self, path: Path, policy: Policy) -> None:
        if policy.fingerprint != self._policy.fingerprint:
            log.info("policy_loaded", file=str(path), policy=policy.fingerprint)
        self._policy = policy
        self.error = None
        LOADS.labels("loaded").inc()
        STALE.set(0)


def _signature(path: Path | None) -> _Signature | None:
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return _Signature(found.st_mtime_ns, found.st_size, found.st_ino) if found else None
