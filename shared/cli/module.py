"""Running a module of a service as a program of its own: the command line imports no service."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence


def run_module(module: str, *arguments: str, **variables: str) -> int:
    """Run it to its end, in this terminal; its exit code. variables: set for it in addition."""
    return _run(module, arguments, variables, output=None).returncode


def read_module(module: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run it to its end; its exit code and what it printed, its errors in this terminal."""
    done = _run(module, arguments, variables, output=subprocess.PIPE)
    return done.returncode, done.stdout


def _run(
    module: str, arguments: Sequence[str], variables: Mapping[str, str], output: int | None
) -> subprocess.CompletedProcess[str]:
    # -P: a folder named `services` where the command happens to be run is not ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # Passed on, not read: what the variables mean is the settings' business.
    environment = {**os.environ, **variables}
    return subprocess.run(  # noqa: S603 - ours
        command, env=environment, check=False, stdout=output, encoding="utf-8"
    )
