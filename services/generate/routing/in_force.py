"""The policy in force with its learned router: read anew when a file changes; the last good one is
kept."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import Counter, Gauge

from services.generate.policy.file import (
    Admit,
    Checked,
    PolicyError,
    admit_any,
    default_policy,
    read_policy,
)
from services.generate.policy.lint import Finding
from services.generate.policy.schema import Policy
from services.generate.routing.learned.model import RouterModel, read_router
from services.generate.routing.learned.outcomes import OutcomesError
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

LOADS = Counter("refdesk_generate_policy_loads_total", "Policy files read, by outcome", ["outcome"])
STALE = Gauge(
    "refdesk_generate_policy_stale", "1 while the policy file can't be used and the last good holds"
)
LOOK_EVERY_S = 1.0
_PATIENCE_S = 1.0


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
class Held:
    """A policy that is in force, and the learned router that it names, if it does."""

    policy: Policy
    router: RouterModel | None = None


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
            read = read_policy(path)
            self._watched = _with_router(self._watched, read.policy, path)
            self._held = _admitted(read, self._watched.router_file, admit)
        self._looked = clock()
        self._reading: asyncio.Task[None] | None = None
        self.error: str | None = None
        STALE.set(0)

    async def held(self) -> Held:
        """The policy and its router, read anew where a file of theirs has changed since it was
        looked at a second ago.

        A file that can't be used changes nothing: `error` says what is wrong, until it is right.
        Nor does one that can't be admitted soon; then the last policy holds until it is.
        """
        if self._path and self._clock() - self._looked >= LOOK_EVERY_S:
            self._looked = self._clock()
            watched = self._watched
            now = _Watched(
                _signature(self._path), watched.router_file, _signature(watched.router_file)
            )
            if now != watched and (self._reading is None or self._reading.done()):
                self._reading = asyncio.create_task(self._reload(self._path))
                # Whoever notices waits for it, but not for a database that does not answer.
                done, _ = await asyncio.wait({self._reading}, timeout=_PATIENCE_S)
                for one in done:
                    one.result()  # raises what is a defect
        return self._held

    async def current(self) -> Policy:
        """The policy of `held`, for whom the router is nothing."""
        return (await self.held()).policy

    async def _reload(self, path: Path) -> None:
        # Before the files are read: a later change is seen.
        watched = replace(self._watched, policy=_signature(path))
        try:
            read = await asyncio.to_thread(read_policy, path)
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


def _admitted(read: Checked, file: Path | None, admit: Admit) -> Held:
    """A policy with its router, of this file, both good. Raises as `load`."""
    router, found = read_named_router(file)
    return Held(read.unless(found or admit(read.policy)), router)


def _signature(path: Path | None) -> _Signature | None:
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return _Signature(found.st_mtime_ns, found.st_size, found.st_ino) if found else None
