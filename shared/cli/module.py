"""Running a module of a service as a program of its own: the command line imports no service."""

import os
import subprocess
import sys


def run_module(module: str, *arguments: str, **variables: str) -> int:
    """Run it to its end, in this terminal; its exit code. variables: set for it in addition."""
    # -P: a folder named `services` where the command happens to be run is not ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # Passed on, not read: what the variables mean is the settings' business.
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - ours
