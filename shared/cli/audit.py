"""``refdesk audit``: whether the trail of all answers is whole, and a copy of it."""

from pathlib import Path
from typing import Annotated

import typer

from shared.cli.module import run_module
from shared.settings import load_settings

app = typer.Typer(help="The trail of all answers.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option(help="The data folder; that of the settings if not given.")
]


@app.command()
def verify(
    data: Data = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER:HASH",
            help="A record that was there once, as the log tells it; can be given several times.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check that no record of the audit trail was changed, removed, moved or put in.

    Each thing found is a line that names the record. The exit code is 0 where the trail is whole.
    It may be in use.
    """
    heads = [word for one in head or () for word in ("--head", one)]
    return _run(data, ["verify", *heads, *(["--json"] if as_json else [])])


@app.command()
def export(
    data: Data = None,
    after: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Only records behind this one.")
    ] = 0,
) -> int:
    """Print the audit trail, a record a line, as JSON."""
    return _run(data, ["export", "--after", str(after)])


def _run(data: Path | None, arguments: list[str]) -> int:
    folder = (data or load_settings().data_dir).absolute()
    variables = {"REFDESK_DATA_DIR": str(folder)}
    if data is not None:  # the trail of that folder, not the one that the settings name
        variables["REFDESK_GENERATE_DATABASE_URL"] = ""
    return run_module("services.generate.trust", *arguments, **variables)
