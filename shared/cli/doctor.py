"""``refdesk doctor``: what is wrong in a data folder that no service uses just now."""

from pathlib import Path
from typing import Annotated

import typer

from shared.cli.module import run_module
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
    return run_module("services.retrieve.doctor", *wanted, REFDESK_DATA_DIR=str(folder))
