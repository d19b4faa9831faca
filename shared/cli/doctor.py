"""``refdesk doctor``: what is wrong in a data folder that no service uses just now."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.settings import load_settings


def doctor(
    data: Annotated[
        Path | None, typer.Option(help="The data folder; that of the settings if not given.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Make the indexes anew, from the databases of the corpora."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check everything in a data folder while retrieve is stopped.

    Each thing found is a line with what to do about it. The exit code is 0 where nothing is wrong.
    The documents are never changed.
    """
    folder = (data or load_settings().data_dir).absolute()
    wanted = [name for name, on in (("--rebuild", rebuild), ("--json", as_json)) if on]
    # -P: a folder named `services` where the command happens to be run is not ours.
    command = [sys.executable, "-P", "-m", "services.retrieve.doctor", *wanted]
    # Passed on, not read: what the variables mean is the settings' business.
    environment = {**os.environ, "REFDESK_DATA_DIR": str(folder)}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - ours
