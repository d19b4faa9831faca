"""The policy file: read, checked, and read anew when it changes; the last good one is kept."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class _Watched:
    """The policy's file and its learned router's, as they were when the policy was last read.

    router_file: of the last policy that was good by itself, None where it names none.
    """

    policy: _Signature | None
    router_file: Path | None = None
    router: _Signature | None = None


@dataclass(frozen=True)
class _Read:
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


@dataclass(frozen=True)
class Held:
    """A policy that is in force, and the learned router that it names, if it does."""

    policy: Policy
    router: RouterModel | None = None


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
    read = _read(path)
    return read.unless(admit(read.policy))


def parse(text: str, name: str, admit: Admit = admit_any) -> Policy:
    """The policy that a text says. name: of the file, for messages. Raises as `load`."""
    read = _parse(text, name)
    return read.unless(admit(read.policy))


def _read(path: Path) -> _Read:
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


def _parse(text: str, name: str) -> _Read:
    data, lines = _data(text, name)
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        findings = [
            _finding(name, lines, fault["loc"], fault["msg"].removeprefix("Value error, "))
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise PolicyError(findings) from None
    read = _Read(policy, name, lines)
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
    """The policy that holds now, and with it the learned router that it names.

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
        self._watched = _Watched(_signature(path))
        if path is None:
            self._held = Held(default_policy(admit))
        else:
            read = _read(path)
            self._watched = _with_router(self._watched, read.policy, path)
            self._held = _admitted(read, self._watched.router_file, admit)
        self._looked = clock()
        self._reading = asyncio.Lock()
        self.error: str | None = None
        STALE.set(0)

    async def held(self) -> Held:
        """The policy and its router, read anew where a file of theirs has changed since it was
        looked at a second ago.

        A file that can't be used changes nothing: `error` says what is wrong, until it is right.
        """
        if self._path and self._clock() - self._looked >= LOOK_EVERY_S:
            self._looked = self._clock()
            watched = self._watched
            now = _Watched(
                _signature(self._path), watched.router_file, _signature(watched.router_file)
            )
            if now != watched and not self._reading.locked():
                async with self._reading:
                    await self._reload(self._path)
        return self._held

    async def current(self) -> Policy:
        """The policy of `held`, for whom the router is nothing."""
        return (await self.held()).policy

    async def _reload(self, path: Path) -> None:
        # Before the files are read: a later change is seen.
        watched = replace(self._watched, policy=_signature(path))
        try:
            read = await asyncio.to_thread(_read, path)
            watched = _with_router(watched, read.policy, path)
            held = await asyncio.to_thread(_admitted, read, watched.router_file, self._admit)
        except PolicyError as error:
            self._keep(path, str(error))
        except ApiError as error:  # the database does not answer: try again
            self._keep(path, error.message)
            watched = replace(watched, policy=None)
        else:
            self._replace(path, held)
        self._watched = watched

    def _keep(self, path: Path, why: str) -> None:
        self.error = why
        LOADS.labels("refused").inc()
        STALE.set(1)
        log.error("policy_refused", file=str(path), kept=self._held.policy.fingerprint, why=why)

    def _replace(self, path: Path, held: Held) -> None:
        if held.policy.fingerprint != self._held.policy.fingerprint:
            log.info("policy_loaded", file=str(path), policy=held.policy.fingerprint)
        self._held = held
        self.error = None
        LOADS.labels("loaded").inc()
        STALE.set(0)


def _with_router(watched: _Watched, policy: Policy, path: Path) -> _Watched:
    """What to watch besides the file of a policy: the router that it names."""
    file = router_file(policy, path.parent)
    return replace(watched, router_file=file, router=_signature(file))


def _admitted(read: _Read, file: Path | None, admit: Admit) -> Held:
    """A policy with its router, of this file, both good. Raises as `load`."""
    router, found = read_named_router(file)
    return Held(read.unless(found or admit(read.policy)), router)


def _signature(path: Path | None) -> _Signature | None:
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return _Signature(found.st_mtime_ns, found.st_size, found.st_ino) if found else None
