"""``refdesk policy lint``: whether a policy file can be used."""

from pathlib import Path
from typing import Annotated

import typer

from shared.cli.module import run_module

app = typer.Typer(help="The routing policy.", no_args_is_help=True)


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="The policy, YAML.", show_default=False)],
) -> int:
    """Check a policy file as the generate service does before it uses one.

    Each thing found is a line with the place in the file. The exit code is 0 where nothing is.
    """
    return run_module("services.generate.policy", str(file))
