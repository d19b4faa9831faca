"""Runs the command `refdesk`: in this process, or in one of its own as a person does.

In this process where what counts is what a command prints and its exit code. Each command has
tests of its own process besides, which prove the same end to end; what concerns signals, closed
streams, commands at the same time or children is always a process of its own.
"""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from shared.cli.main import run

COMMAND = [sys.executable, "-P", "-m", "shared.cli.main"]


def refdesk(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, from its arguments to its exit code.

    env: variables beside those of this process. There is nothing to read on its stdin.
    """
    out, err = _stream(), _stream()
    with (
        pytest.MonkeyPatch.context() as patch,
        open(os.devnull) as nothing,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["refdesk", *arguments])
        patch.setattr(sys, "stdin", nothing)
        with pytest.raises(SystemExit) as ended:
            run()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(arguments, ended.value.code, _text(out), _text(err))


def _stream() -> io.TextIOWrapper:
    """A stream as that of a process whose output goes to a pipe."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8")


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def refdesk_process(
    *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. timeout, in seconds, only keeps a hanging one from staying."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def one_error(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line that a failed command told its user; fails if it told anything else."""
    assert result.returncode == code, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    return lines[0].removeprefix("error: ")


class Running:
    """A command that stays, such as ``refdesk up``; its output is read as it comes."""

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str) -> None:
        """Wait until `text` is in the output; fail if the command ends first."""
        wait_until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def children(self) -> list[int]:
        """The process ids of its services."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and give the exit code as a shell counts it; kills it if it does not go."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail("it did not stop")
        self._reader.join(10)
        return code if code >= 0 else 128 - code


def alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return once `condition` holds; fail when it has not come to hold after a generous time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail("what was waited for did not come")
        time.sleep(0.05)
