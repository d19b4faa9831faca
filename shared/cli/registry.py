"""``refdesk registry``: the inventory of the policy's models, and the history of their states."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlencode

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, output, plain
from shared.cli.http import Api
from shared.settings import load_settings

app = typer.Typer(help="The models of the policy.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Address of the generate service.")]


class Format(StrEnum):
    """How the inventory is written."""

    JSON = "json"
    CSV = "csv"


@app.command()
def export(
    format: Annotated[Format, typer.Option(help="json, or csv for a spreadsheet.")] = Format.JSON,  # noqa: A002 - the option's name
    url: Url = "",
) -> None:
    """Print every model of the policy with all that is known of it."""
    with Api("generate", load_settings(), url) as api:
        if format is Format.JSON:
            found = api.get("/v1/registry", "policy", "models")
            print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
            return
        with api.download("/v1/registry?format=csv") as response:
            print(plain(response.read().decode()), end="")


@app.command()
def history(
    model: Annotated[str, typer.Option(help="Of this model alone.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many changes at most.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="As it came, as JSON.")] = False,
    url: Url = "",
) -> None:
    """List when models came into their states, the newest change first."""
    query = urlencode({"limit": limit} | ({"model": model} if model else {}))
    with Api("generate", load_settings(), url) as api:
        answer = api.get(f"/v1/registry/history?{query}", "changes")
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    if not answer["changes"]:
        notes().print("there were no changes")
        return
    table = Table("at", "model", "from", "to", "policy", box=None)
    for one in answer["changes"]:
        cells = (one["at"], one["model"], one["before"] or "new", one["after"], one["policy"][:12])
        table.add_row(*map(escape, cells))
    output().print(table)
