"""Runs programs as child processes: starts them, restarts what dies, and stops them all.

It knows nothing of what they do beyond one rule: exit code 78 means that the configuration is
wrong and that starting again will not help. One thread, no callbacks: the owner calls `check`
often (`watch` does it for ever), and leaving the context stops every child. Own it from the main
thread: children die with the thread that started them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from shared.cli.failures import CliError
from shared.errors import EXIT_CONFIG

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
STEADY_S = 60.0  # a child that ran this long has shown that it can
_ROTATE_BYTES = 10 * 1024 * 1024
_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1

# Looked up before any fork: between fork and exec only calls that take no lock are safe.
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """A program to keep running.

    environment: variables on top of this process's own. url: base URL of the service that it is.
    log: file that its output is appended to.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    url: str
    log: Path


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    log_start: int  # where this run's output begins in the log
    echoed: int
    deaths: int = 0
    pause: float = 0.0
    due: float | None = field(default=None)  # when to start again; None while it runs


def next_pause(previous: float, uptime: float) -> float:
    """Seconds to wait before starting a child again.

    previous: the pause before the run that just ended, 0 for the first. uptime: seconds it ran.
    The pause doubles from 0.5 s to 10 s; a run of 60 s or more begins anew.
    """
    if previous == 0 or uptime >= STEADY_S:
        return FIRST_PAUSE_S
    return min(previous * 2, LONGEST_PAUSE_S)


class Supervisor:
    """The programs of one command, as children of this process.

    tell: gets each line that a person should see (a restart, and the logs if `echo` is set).
    grace_s: seconds from SIGTERM to SIGKILL when they are stopped.
    Entering starts them, and from then on SIGTERM and SIGHUP mean what Ctrl-C means.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        tell: Callable[[str], None],
        *,
        echo: bool = False,
        grace_s: float = 4.0,
    ) -> None:
        self._programs = list(programs)
        self._tell = tell
        self._echo = echo
        self._grace_s = grace_s
        self._children: list[_Child] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._interrupted = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup sets SIGHUP to be ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._interrupt)
        try:
            for program in self._programs:
                _rotate(program.log)
                self._children.append(_start(program))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupt(self, *_: object) -> None:
        # Kept as well as raised: Python drops what is raised within a callback of its own, of
        # which an import or the garbage collector has many.
        self._interrupted = True
        raise KeyboardInterrupt

    @property
    def programs(self) -> list[Program]:
        """What this supervisor runs."""
        return list(self._programs)

    def pids(self) -> dict[str, int]:
        """The process id of each child, by name."""
        return {child.program.name: child.process.pid for child in self._children}

    def deaths(self) -> dict[str, int]:
        """How often each child has ended unexpectedly, by name."""
        return {child.program.name: child.deaths for child in self._children}

    def check(self) -> None:
        """Look after the children once: pass on logs, restart what died and waited its pause.

        Raises CliError if one ended with exit code 78; the message is the child's own. Raises
        KeyboardInterrupt if the one that a signal raised was lost.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        now = time.monotonic()
        for child in self._children:
            if self._echo:
                self._pass_on(child)
            if child.due is None:
                code = child.process.poll()
                if code is not None:
                    self._died(child, code, now)
            elif now >= child.due:
                again = _start(child.program)
                child.process, child.started, child.due = again.process, again.started, None
                child.log_start = again.log_start

    def watch(self) -> None:
        """Look after the children until Ctrl-C or SIGTERM (KeyboardInterrupt)."""
        while True:
            self.check()
            time.sleep(_TICK_S)

    def _died(self, child: _Child, code: int, now: float) -> None:
        name, log = child.program.name, child.program.log
        if code == EXIT_CONFIG:
            raise CliError(_last_error(child) or f"{name} can't start; see {log}")
        child.deaths += 1
        child.pause = next_pause(child.pause, now - child.started)
        child.due = now + child.pause
        # Not every signal has a name: those for real time have numbers alone.
        names = {one.value: one.name for one in signal.Signals}
        how = f"exit code {code}" if code >= 0 else f"signal {names.get(-code, -code)}"
        self._tell(
            f"{name} ended unexpectedly ({how}); starting it again in {child.pause:g} s; "
            f"its log: {log}"
        )

    def _pass_on(self, child: _Child) -> None:
        with child.program.log.open("rb") as file:
            file.seek(child.echoed)
            data = file.read(1 << 20)
        whole = data[: data.rfind(b"\n") + 1]
        child.echoed += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            self._tell(f"{child.program.name:>8} │ {line}")

    def _stop(self) -> None:
        children = [child for child in self._children if child.process.poll() is None]
        for child in children:
            child.process.terminate()
        give_up = time.monotonic() + self._grace_s
        try:
            for child in children:
                child.process.wait(max(0.0, give_up - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
            pass
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
        if self._echo:
            for child in self._children:
                self._pass_on(child)
        self._children.clear()


def _rotate(log: Path) -> None:
    """Make the log's folder, and put a log that has grown long aside as ``NAME.log.1``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _ROTATE_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def _start(program: Program) -> _Child:
    with program.log.open("ab") as output:
        begin = output.tell()
        process = _spawn(program, output)
    return _Child(program, process, time.monotonic(), begin, begin)


def _spawn(program: Program, output: IO[bytes]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        # Without it, a supervisor that is killed with SIGKILL leaves its children behind.
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the call
                os._exit(1)

    return subprocess.Popen(  # noqa: S603 - our own interpreter and modules
        list(program.command),
        # Passed on, not read: what the variables mean is the settings' business.
        env={**os.environ, **program.environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # A group of its own: the terminal's Ctrl-C reaches the supervisor alone, once.
        process_group=0,
        preexec_fn=die_with_parent,
    )


def _last_error(child: _Child) -> str | None:
    """The last ``error: …`` line that this run of the child wrote, without the prefix."""
    with child.program.log.open("rb") as file:
        file.seek(child.log_start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line for line in lines if line.startswith("error: ")]
    return told[-1].removeprefix("error: ") if told else None
